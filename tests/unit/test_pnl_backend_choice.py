"""The setting chooses the backend, and says why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from decimal import Decimal

import numba
import pytest

from tests.fake_cupy import NO_DRIVER, FakeCupy
from tests.pnl_oracle import position
from tradepool.errors import Misconfigured
from tradepool.pnl import backend as backend_module
from tradepool.pnl.backend import CUDA_ROWS_MIN, Backends
from tradepool.pnl.book import Book
from tradepool.pnl.cpu import numba_backend
from tradepool.pnl.cuda import device as cuda_device
from tradepool.pnl.cuda import tables as cuda_tables
from tradepool.pnl.marks import mark


@pytest.fixture
def no_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("tradepool.pnl.cpu.numba")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def cupy(monkeypatch):
    """A machine with one device."""
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


@pytest.fixture
def unchecked():
    """A process that has not looked yet whether compiled loops are right."""
    backend_module._check_once.cache_clear()
    yield
    backend_module._check_once.cache_clear()


def test_auto_takes_compiled_loops_for_a_small_book_and_looks_for_no_device(cupy):
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN - 1).name == "numba"
    assert backends.reason == f"auto: numba; a device pays from {CUDA_ROWS_MIN} rows on"
    assert cupy.launched == []


def test_auto_takes_the_device_for_a_large_book_once_it_has_passed_its_check(cupy):
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "cuda"
    assert backends.reason == "auto: cuda, device 0 answers"
    assert cupy.launched


def test_auto_without_a_device_takes_compiled_loops_and_says_why(no_cupy):
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "auto: numba; no device: pnl_backend: cupy does not load" in backends.reason


def test_auto_falls_to_numpy_and_says_why(no_numba, no_cupy):
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numpy"
    assert "numba does not work here" in backends.reason


@pytest.mark.parametrize("loop", ["mark_stretch", "add_rows", "revalue_rows"])
def test_compiled_loops_that_compute_wrong_are_not_taken(loop, unchecked, no_cupy, monkeypatch):
    monkeypatch.setattr(numba_backend, loop, lambda *_: None)
    backends = Backends("auto")
    assert backends.for_rows(1).name == "numpy"
    assert "numba computes other sums than numpy" in backends.reason
    with pytest.raises(Misconfigured, match="set TRADEPOOL_PNL_BACKEND to another one"):
        Backends("numba").for_rows(1)


def test_loops_that_do_not_compile_are_not_taken(unchecked, no_cupy, monkeypatch):
    monkeypatch.setattr(numba_backend, "mark_stretch", numba.njit(lambda *_: object()))
    backends = Backends("auto")
    assert backends.for_rows(1).name == "numpy"
    assert "numba does not work here: Failed in nopython mode" in backends.reason


@pytest.mark.parametrize("setting", ["numpy", "numba", "cuda"])
@pytest.mark.parametrize("rows", [0, 10**7])
def test_a_backend_is_what_was_set_whatever_the_size(setting, rows, cupy):
    backends = Backends(setting)
    assert (backends.for_rows(rows).name, backends.reason) == (setting, f"{setting}: as set")


def test_the_backend_stays_the_same_object_and_the_device_is_looked_for_once(cupy, monkeypatch):
    backends = Backends("auto")
    taken = backends.for_rows(CUDA_ROWS_MIN)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert backends.for_rows(10 * CUDA_ROWS_MIN) is taken
    small = backends.for_rows(10)
    assert small.name == "numba"
    assert backends.for_rows(20) is small
    assert backends.for_rows(CUDA_ROWS_MIN) is taken


def test_a_device_that_is_missing_is_not_looked_for_again(no_cupy, monkeypatch):
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"


def test_a_book_around_the_threshold_does_not_move_back_and_forth(cupy):
    backends = Backends("auto")
    sizes = (CUDA_ROWS_MIN, CUDA_ROWS_MIN - 1, CUDA_ROWS_MIN // 2, CUDA_ROWS_MIN // 2 - 1, CUDA_ROWS_MIN - 1)
    assert [backends.for_rows(size).name for size in sizes] == ["cuda", "cuda", "cuda", "numba", "numba"]


def test_numba_that_is_not_installed_is_misconfigured_with_the_cure(no_numba):
    with pytest.raises(Misconfigured, match=r"pip install 'tradepool\[fast\]'"):
        Backends("numba").for_rows(1)


@pytest.mark.parametrize("setting", ["abacus", ""])
def test_a_backend_that_is_not_there_is_misconfigured_with_the_cure(setting):
    with pytest.raises(Misconfigured, match=r"TRADEPOOL_PNL_BACKEND to one of auto, numpy, numba, cuda"):
        Backends(setting).for_rows(1)


def test_cuda_without_cupy_is_misconfigured_with_the_cure(no_cupy):
    with pytest.raises(Misconfigured, match=r"pip install 'tradepool\[gpu\]' for drivers of CUDA 11"):
        Backends("cuda").for_rows(1)


def test_a_cupy_that_fails_to_load_in_any_way_costs_no_tick(monkeypatch):
    def fail(name):
        raise AttributeError("module 'numpy' has no attribute 'in1d'")

    monkeypatch.setattr(cuda_device.importlib, "import_module", fail)
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "cupy does not load: AttributeError: module 'numpy' has no attribute" in backends.reason


def test_cuda_without_a_driver_is_misconfigured_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(devices=0))
    with pytest.raises(Misconfigured, match="no CUDA device answers: RuntimeError: ") as caught:
        Backends("cuda").for_rows(1)
    assert NO_DRIVER in str(caught.value)
    assert "install the NVIDIA driver, or set TRADEPOOL_PNL_BACKEND to auto, numba or numpy" in str(
        caught.value
    )


@pytest.mark.parametrize("number", [1, 7, -1])
def test_a_device_number_that_is_not_there_is_misconfigured_with_the_cure(cupy, number):
    with pytest.raises(Misconfigured, match=f"no CUDA device {number}, 1 answer; set TRADEPOOL_PNL_DEVICE"):
        Backends("cuda", device=number).for_rows(1)


def test_kernels_that_do_not_compile_are_one_line_with_the_cure(cupy, monkeypatch):
    def fail(**_):
        raise OSError("\nlibnvrtc.so.11.2: cannot open shared object file\nand more")

    monkeypatch.setattr(cupy, "RawModule", fail)
    with pytest.raises(Misconfigured) as caught:
        Backends("cuda").for_rows(1)
    assert str(caught.value) == (
        "pnl_backend: device 0 cannot be used: OSError: libnvrtc.so.11.2: cannot open shared object file; "
        "docs/gpu.md says what a machine needs, or set TRADEPOOL_PNL_BACKEND to auto, numba or numpy"
    )
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "libnvrtc" in backends.reason


def test_auto_does_not_take_a_device_that_computes_wrong(cupy, monkeypatch):
    monkeypatch.setattr(cuda_tables, "FEE_UNITS_PER_ONE", 10**7 + 1)
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "computes other sums than numpy" in backends.reason


def test_a_device_that_is_full_at_its_check_is_no_device(cupy):
    cupy.memory_bytes = 1000
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "failed its check: Out of memory" in backends.reason


def test_a_cupy_that_takes_other_arguments_costs_no_tick(cupy, monkeypatch):
    monkeypatch.setattr(cupy, "empty", lambda: None)
    backends = Backends("auto")
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "failed its check: " in backends.reason


def test_a_forked_child_looks_for_itself(cupy, monkeypatch):
    backends, own = Backends("auto"), os.getpid()
    assert backends.for_rows(CUDA_ROWS_MIN).name == "cuda"
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(devices=0))
    monkeypatch.setattr(backend_module.os, "getpid", lambda: own + 1)
    assert backends.for_rows(CUDA_ROWS_MIN).name == "numba"
    assert "no CUDA device answers" in backends.reason


def test_each_reason_is_logged_once(no_cupy, caplog):
    backends = Backends("auto")
    with caplog.at_level(logging.INFO, logger="tradepool.pnl.backend"):
        for rows in (1, 2, CUDA_ROWS_MIN, CUDA_ROWS_MIN + 1):
            backends.for_rows(rows)
    told = [line for record in caplog.records if (line := record.getMessage()).startswith("pnl backend")]
    assert [line.split(";")[0] for line in told] == ["pnl backend auto: numba"] * 2
    assert backends.reason in caplog.text


def test_marks_name_the_chosen_backend():
    book = Book.from_positions([position("t", "1")])
    marks = mark(book, {"BTC/USDT": Decimal(1)}, 0, backend=Backends("auto").for_rows(1))
    assert marks.backend == "numba"


def test_marking_needs_numpy_and_the_standard_library_only():
    seen = subprocess.run(
        [sys.executable, "-c", "import sys, tradepool.pnl.marks; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    allowed = {"numpy", "tradepool", *sys.stdlib_module_names}
    names = {name.partition(".")[0] for name in seen if not name.startswith(("_", "sitecustomize"))}
    assert names <= allowed
