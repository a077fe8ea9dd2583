"""kernels.cu compiles for the devices it is meant for: NVRTC is a wheel and needs no device and no driver."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cuda_build import kernel_names
from tradepool.pnl.cuda import backend as cuda_backend
from tradepool.pnl.cuda import device as cuda_device
from tradepool.pnl.cuda import rows as cuda_rows
from tradepool.pnl.cuda import tables as cuda_tables
from tradepool.pnl.cuda.device import COMPILE_OPTIONS, KERNELS, packaged_compilers

REGISTERS = 65536
"""Of a multiprocessor."""
SHARED_BYTES = 64 * 1024
"""Of a multiprocessor of compute capability 7.5, the smallest of all from 7.0 on."""
SHARED_BYTES_OF_A_BLOCK = 48 * 1024
"""That a kernel gets without asking for more."""
COPY_BYTES_MAX = 16
"""What may be spilled before it counts: two words of a row's 22 bytes."""


@pytest.fixture(scope="module")
def nvrtc():
    """The compiler of CUDA 11.8. CI on a system that has a wheel of it has to have it."""
    found = [path for path in packaged_compilers() if path.name.startswith("libnvrtc.so.11")]
    if not found:
        is_expected = (sys.platform, platform.machine()) == ("linux", "x86_64") and os.environ.get("CI")
        (pytest.fail if is_expected else pytest.skip)("no NVRTC: pip install nvidia-cuda-nvrtc-cu11")
    return ctypes.CDLL(str(found[0]))


def compiled(nvrtc, *options):
    """PTX or machine code, and what the compiler says."""
    # It leaves its thread in a locale in which the tests after this one would read files as ASCII.
    with ThreadPoolExecutor(1) as compiler:
        return compiler.submit(compile_here, nvrtc, *options).result()


def compile_here(nvrtc, *options):
    program = ctypes.c_void_p()
    source = KERNELS.read_bytes()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) == 0
    try:
        given = [option.encode() for option in (*COMPILE_OPTIONS, *options)]
        status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        log = taken(nvrtc, program, "ProgramLog").decode()
        assert status == 0, log
        kind = "CUBIN" if any("sm_" in option for option in options) else "PTX"
        return taken(nvrtc, program, kind), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def taken(nvrtc, program, what):
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw.rstrip(b"\0") if what == "ProgramLog" else buffer.raw


def test_the_kernels_compile_without_a_warning_and_integers_alone_means_no_double(nvrtc):
    ptx, log = compiled(nvrtc, "-arch=compute_75")
    assert log.strip() == ""
    bodies = re.split(r"\.entry ", ptx.decode(errors="replace"))[1:]
    assert {body.split("(", 1)[0] for body in bodies} == kernel_names()
    # Each float64 instruction rounds once, as the bounds of the tables take it: none is fused.
    floats = set(re.findall(r"(?<!\S)(?!ld)\S+\.f(?:16|32|64)\S*", ptx.decode(errors="replace")))
    assert floats == {"mul.rn.f64", "cvt.rn.f64.s64", "cvt.rni.s64.f64"}
    with_doubles = {body.split("(", 1)[0] for body in bodies if ".f64" in body}
    assert with_doubles == {name for name in kernel_names() if "narrow" in name or "wide" in name}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_machine_code_keeps_its_rows_in_registers(nvrtc, architecture):
    code, log = compiled(nvrtc, f"-arch={architecture}", "-Xptxas", "-v")
    assert code.startswith(b"\x7fELF")
    kernels = re.split(r"Compiling entry function ", log)[1:]
    assert len(kernels) == len(kernel_names())
    for kernel in kernels:
        assert sum(map(int, re.findall(r"(\d+) bytes spill", kernel))) <= COPY_BYTES_MAX, kernel
        name = kernel.split("'", 2)[1]
        if name != "rewrite_rows":
            shared_bytes = int(re.search(r"(\d+) bytes smem", kernel)[1])
            registers = int(re.search(r"Used (\d+) registers", kernel)[1])
            assert shared_bytes <= SHARED_BYTES_OF_A_BLOCK
            assert resident_blocks()[name] * shared_bytes <= SHARED_BYTES
            assert resident_blocks()[name] * constant("THREADS") * registers <= REGISTERS


def resident_blocks():
    """How many blocks of each kernel a multiprocessor shall hold, as kernels.cu bounds their registers."""
    found = re.findall(
        r"^MARK_KERNEL\((\w+), \w+, \w+, (\d+)\)", KERNELS.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: int(blocks) for name, blocks in found}


def constant(name):
    return int(
        re.search(rf"^constexpr int {name} = (\d+);", KERNELS.read_text(encoding="utf-8"), re.MULTILINE)[1]
    )


def test_what_is_launched_is_what_the_kernels_were_written_for():
    assert resident_blocks() == {
        name: cuda_backend._PLAIN_BLOCKS if name.endswith("_plain") else cuda_backend._HALVED_BLOCKS
        for name in kernel_names() - {"rewrite_rows"}
    }
    assert constant("THREADS") == cuda_device.THREADS
    assert constant("THREADS") // constant("WARP") == cuda_backend._WARPS
    assert constant("TILE_ROWS") == cuda_rows.TILE_ROWS
    assert constant("TILE_ROWS") % (constant("WARP") * constant("ROWS_PER_LANE")) == 0
    (fields,) = re.findall(
        r"struct __align__\(16\) Entry \{(.*?)\};", KERNELS.read_text(encoding="utf-8"), re.DOTALL
    )
    assert fields.count(";") == cuda_tables.ENTRY_WORDS


def test_nothing_is_included_so_that_no_toolkit_is_needed():
    assert "#include" not in KERNELS.read_text(encoding="utf-8")
