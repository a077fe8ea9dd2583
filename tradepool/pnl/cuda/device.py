"""One CUDA device through CuPy: found by number, kernels compiled, memory and copies on a stream of its own.

Only kernels.cu is compiled, and it includes nothing, so a machine needs the driver and NVRTC and no toolkit.
From CuPy come memory, copies and launches alone: its own kernels would want the toolkit's headers.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tradepool.errors import Misconfigured
from tradepool.pnl.book.columns import Ints

__all__ = [
    "COMPILE_OPTIONS",
    "KERNELS",
    "THREADS",
    "Arithmetic",
    "CudaDevice",
    "open_device",
    "packaged_compilers",
]

KERNELS = Path(__file__).with_name("kernels.cu")
COMPILE_OPTIONS = ("-std=c++14",)
THREADS = 256
"""Of a block, in every launch."""

_OTHER_BACKEND = "or set TRADEPOOL_PNL_BACKEND to auto, numba or numpy"
# What CuPy's errors have as `status` when memory is full: that of the runtime and that of the driver.
_OUT_OF_MEMORY = 2
# Where single precision is this many times as fast as double, integers are the faster arithmetic. Devices
# for computing have a ratio of 2, all others 24 or more.
_DOUBLE_IS_SLOW = 8

DeviceArray = Any
"""A cupy.ndarray."""


class Arithmetic(StrEnum):
    """How a device divides; the results are the same."""

    FLOAT = "float"
    """Estimates in float64, corrected exactly."""
    WHOLE = "whole"
    """Integers alone."""


class CudaDevice:
    """A device with the kernels loaded; everything on it happens within `active`.

    A CUDA context does not survive a fork: the process that opens a device is the one that uses it.
    """

    def __init__(self, cupy: Any, number: int, arithmetic: Arithmetic | None) -> None:
        """`arithmetic`: None for the one that is faster on this device."""
        self._cupy = cupy
        self._device = cupy.cuda.Device(number)
        with self._device:
            attributes = self._device.attributes
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._kernels = cupy.RawModule(code=KERNELS.read_text(encoding="utf-8"), options=COMPILE_OPTIONS)
            self._kernels.compile()
            self._functions: dict[str, Any] = {}
            properties = cupy.cuda.runtime.getDeviceProperties(number)
        self.multiprocessors = int(attributes["MultiProcessorCount"])
        self.arithmetic = arithmetic or _faster(attributes)
        self.description = (
            f"{properties['name'].decode()} (device {number}, compute capability "
            f"{self._device.compute_capability}, CUDA driver {cupy.cuda.runtime.driverGetVersion()}), "
            f"{self.arithmetic} arithmetic"
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        """Work inside happens on this device and its stream, in order.

        Raises: MemoryError whatever memory was full; CuPy raises it for the device's own alone.
        """
        try:
            with self._device, self._stream:
                yield
        except RuntimeError as problem:
            if getattr(problem, "status", None) != _OUT_OF_MEMORY:
                raise
            raise MemoryError(str(problem)) from problem

    def zeros(self, size: int, dtype: npt.DTypeLike) -> DeviceArray:
        """An array on the device, filled with 0."""
        array = self.empty(size, dtype)
        array.data.memset_async(0, array.nbytes)
        return array

    def empty(self, size: int, dtype: npt.DTypeLike) -> DeviceArray:
        """An array on the device, filled with anything; never one without memory."""
        return self._cupy.empty(max(1, size), dtype)

    def fill(self, target: DeviceArray, source: npt.NDArray[Any]) -> None:
        """Copy `source` to the device; when this returns it may be changed or let go.

        Copies out of memory that is not pinned are mostly done when CuPy returns, which nobody promises.
        """
        target.set(source)
        self.wait()

    def pinned(self, words: int) -> Ints:
        """An int64 array of memory that the device copies from and to directly."""
        memory = self._cupy.cuda.alloc_pinned_memory(words * np.dtype(np.int64).itemsize)
        return np.frombuffer(memory, np.int64, words)

    def wait(self) -> None:
        """Return when everything asked of the device is done."""
        self._stream.synchronize()

    def launch(self, kernel: str, blocks: int, arguments: Sequence[object]) -> None:
        """Start a kernel of kernels.cu, whose arguments are device arrays, None and ints."""
        words = [
            np.int64(0 if each is None else each) if each is None or isinstance(each, int) else each
            for each in arguments
        ]
        if kernel not in self._functions:
            self._functions[kernel] = self._kernels.get_function(kernel)
        self._functions[kernel]((blocks,), (THREADS,), tuple(words))


def open_device(number: int, arithmetic: Arithmetic | None = None) -> CudaDevice:
    """The device of that number, ready.

    Raises: Misconfigured naming what is missing, and the cure: CuPy, a driver, the device, a compiler.
    """
    try:
        cupy = importlib.import_module("cupy")
    except Exception as problem:
        # Whatever is missing, or does not go with this numpy, is a reason to mark without it.
        cure = "pip install 'tradepool[gpu]' for drivers of CUDA 11 and 12, 'tradepool[gpu13]' from 13 on"
        line = f"pnl_backend: cupy does not load: {_one_line(problem)}; {cure}, {_OTHER_BACKEND}"
        raise Misconfigured(line) from problem
    _check_number(cupy, number)
    try:
        for compiler in packaged_compilers():
            # CuPy 13 asks for it by name, and gets what is loaded already; CuPy 14 looks into wheels itself.
            ctypes.CDLL(str(compiler))
        return CudaDevice(cupy, number, arithmetic)
    except Exception as problem:
        # Whatever a driver, a device or a compiler says at its first use is a reason.
        cure = "docs/gpu.md says what a machine needs"
        line = f"pnl_backend: device {number} cannot be used: {_one_line(problem)}; {cure}, {_OTHER_BACKEND}"
        raise Misconfigured(line) from problem


def _check_number(cupy: Any, number: int) -> None:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as problem:
        cure = f"install the NVIDIA driver, {_OTHER_BACKEND}"
        raise Misconfigured(f"pnl_backend: no CUDA device answers: {_one_line(problem)}; {cure}") from problem
    if not 0 <= number < count:
        cure = "set TRADEPOOL_PNL_DEVICE to a smaller number"
        raise Misconfigured(f"pnl_device: there is no CUDA device {number}, {count} answer; {cure}")


def packaged_compilers() -> list[Path]:
    """NVRTC of CUDA 11 and 12 out of their wheels, where they are installed."""
    found = find_spec("nvidia")
    folders = (found and found.submodule_search_locations) or ()
    return [
        path for folder in folders for path in sorted(Path(folder, "cuda_nvrtc", "lib").glob("libnvrtc.so.*"))
    ]


def _faster(attributes: dict[str, int]) -> Arithmetic:
    # A driver that does not tell is no reason to fail: integers are fast everywhere.
    ratio = attributes.get("SingleToDoublePrecisionPerfRatio", _DOUBLE_IS_SLOW)
    return Arithmetic.WHOLE if ratio >= _DOUBLE_IS_SLOW else Arithmetic.FLOAT


def _one_line(problem: Exception) -> str:
    lines = str(problem).split("\n")
    return f"{type(problem).__name__}: {next((line for line in lines if line.strip()), '').strip()}"
