"""kernels.cu built for the processor by the C++ compiler of the machine, under tests/cuda_emulator."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tradepool.pnl.cuda.device import KERNELS

__all__ = ["EmulatedKernels", "emulated_kernels", "kernel_names"]

BUILT = Path(__file__).parents[1] / ".pytest_cache" / "emulated"
SOURCE = Path(__file__).with_name("cuda_emulator") / "build.cpp"
# No fused products, as in the kernels; int64 wraps there, so it has to here.
OPTIONS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function")
SEMANTICS = ("-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing", "-shared", "-fPIC")

Ints = npt.NDArray[np.int64]


class EmulatedKernels:
    """The kernels under the emulator, and the row function by itself."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def launch(
        self, kernel: str, blocks: int, threads: int, words: Sequence[int], *, backwards: bool
    ) -> None:
        """Run a kernel on `blocks` blocks, one after the other; from the last thread on if `backwards`."""
        arguments = (ctypes.c_uint64 * len(words))(*words)
        function = ctypes.cast(getattr(self._library, kernel), ctypes.c_void_p)
        status = self._library.launch(function, arguments, len(words), blocks, threads, int(backwards))
        assert status == 0, f"threads of {kernel} wait for others that never come, or at different calls"

    def mark_rows(
        self, arithmetic: str, lots: Ints, cost: Ints, entries: Ints, fees: Ints
    ) -> tuple[Ints, Ints]:
        """Value and unrealised PnL of rows that have an entry and a fee each."""
        values, unrealised = np.empty_like(lots), np.empty_like(lots)
        arrays = [np.require(each, np.int64, "C") for each in (lots, cost, entries, fees, values, unrealised)]
        pointers = [ctypes.c_void_p(each.ctypes.data) for each in arrays]
        getattr(self._library, f"rows_{arithmetic}")(ctypes.c_int64(len(lots)), *pointers)
        return values, unrealised


def kernel_names() -> set[str]:
    """The kernels that kernels.cu has."""
    source = KERNELS.read_text(encoding="utf-8")
    return set(re.findall(r"^MARK_KERNEL\((\w+)", source, re.MULTILINE)) | {"rewrite_rows"}


@functools.cache
def emulated_kernels() -> EmulatedKernels:
    """Built once for each state of the sources. Without a compiler the test is skipped, in CI it fails."""
    library = BUILT / f"kernels-{_fingerprint()}.so"
    if not library.exists():
        _build(library)
    return EmulatedKernels(ctypes.CDLL(str(library)))


def _fingerprint() -> str:
    sources = (KERNELS, *sorted(SOURCE.parent.iterdir()))
    text = platform.machine() + "".join(path.read_text(encoding="utf-8") for path in sources)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build(library: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        without_compiler = pytest.fail if os.environ.get("CI") else pytest.skip
        without_compiler("no C++ compiler: install g++ (Debian: build-essential)")
    library.parent.mkdir(parents=True, exist_ok=True)
    # Test processes beside this one may build too: what has the name is whole.
    own = library.with_suffix(f".{os.getpid()}")
    command = [compiler, *OPTIONS, *SEMANTICS, f'-DKERNELS="{KERNELS}"', str(SOURCE), "-o", str(own)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    own.replace(library)
