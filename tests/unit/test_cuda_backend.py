"""The CUDA backend from end to end on the emulator: its real code, its real kernels, no device."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from unittest.mock import Mock

import numpy as np
import pytest

from bench.gpu_marks import measure
from tests.cuda_build import kernel_names
from tests.fake_cupy import FakeCupy
from tests.gpu import results as results_module
from tests.gpu.checks import CHECKS, Machine, assert_equal_sums, large_books_have_the_sums_of_numpy
from tests.gpu.results import Results
from tests.gpu.synthetic import SyntheticBook
from tests.pnl_oracle import position
from tradepool.errors import Misconfigured
from tradepool.pnl.backend_check import check_sums
from tradepool.pnl.book import Book
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.cuda import tables as cuda_tables
from tradepool.pnl.cuda.backend import CudaBackend
from tradepool.pnl.cuda.device import KERNELS, Arithmetic, CudaDevice
from tradepool.pnl.fallback import Fallback
from tradepool.pnl.marks import mark
from tradepool.pnl.tables import Tables

ROWS = 5000


def emulated(cupy: FakeCupy, rows: int = ROWS) -> Machine:
    @contextmanager
    def with_memory(left_bytes):
        free = cupy.memory_bytes - left_bytes
        cupy.memory_bytes = left_bytes
        yield
        cupy.memory_bytes += free

    return Machine(cupy=cupy, rows=rows, with_memory=with_memory, repeats=2)


@pytest.mark.parametrize(
    "arithmetic", [Arithmetic.WHOLE, pytest.param(Arithmetic.FLOAT, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "check",
    sorted({*CHECKS} - {large_books_have_the_sums_of_numpy}, key=CHECKS.index),
    ids=lambda check: check.__name__,
)
def test_the_checks_of_a_device(check, arithmetic):
    check(emulated(FakeCupy(backwards=arithmetic is Arithmetic.WHOLE)), arithmetic)


def test_large_books_have_the_sums_of_numpy_through_every_kernel():
    cupy = FakeCupy()
    for arithmetic in Arithmetic:
        large_books_have_the_sums_of_numpy(emulated(cupy), arithmetic)
    assert {name for name in kernel_names() if name.startswith("mark_")} == set(cupy.launched)


def test_a_device_with_slow_doubles_divides_in_integers_unless_told_otherwise():
    tesla_t4, datacentre = FakeCupy(double_ratio=32), FakeCupy(double_ratio=2)
    assert CudaDevice(tesla_t4, 0, None).arithmetic is Arithmetic.WHOLE
    assert CudaDevice(datacentre, 0, None).arithmetic is Arithmetic.FLOAT
    assert CudaDevice(tesla_t4, 0, Arithmetic.FLOAT).arithmetic is Arithmetic.FLOAT
    assert "compute capability 75" in CudaDevice(tesla_t4, 0, None).description


def alike(rows: int, groups: int) -> tuple[SyntheticBook, Tables]:
    """Rows that are worth 2**49 each, in one code, and the tables that say so."""
    book = SyntheticBook.of(rows, seed=1, symbols=1)
    book.columns.lots[:] = 2**48
    book.columns.cost[:] = -(2**48)
    book.columns.code[:] = 2
    book.columns.group[:] = np.arange(rows) * groups // rows
    tables = replace(book.tables(1), multiplier=np.full(4, 1), divisor=np.full(4, 1), quotient=np.ones(4))
    tables = replace(tables, reciprocal=np.ones(4), limit=np.full(4, 2**62), wide=False, partial=False)
    tables = replace(tables, fee_rate=np.zeros(1, np.int64), fee_quotient=np.zeros(1), magnitude_max=2**49)
    return replace(book, groups=groups), tables


def test_sums_by_code_of_a_block_stay_within_int64_however_many_rows_it_has():
    # A block has room for some 16 tiles of such rows, and there are 40.
    cupy = FakeCupy()
    device = CudaDevice(cupy, 0, Arithmetic.FLOAT)
    device.multiprocessors = 0
    rows = 40 * 1024
    book, tables = alike(rows, groups=rows)
    backend = CudaBackend(device)
    backend.upload(book.columns)
    backend.mark(tables, groups=rows, rows=False)
    assert set(cupy.launched) == {"mark_narrow_plain"}
    assert backend.download().code_unrealised.tolist()[2] == rows * 2**49 > 2**63


def test_a_group_of_more_rows_than_int64_can_add_up_is_added_up_in_halves():
    cupy = FakeCupy()
    rows = 40 * 1024
    book, tables = alike(rows, groups=2)
    backend = CudaBackend(CudaDevice(cupy, 0, Arithmetic.FLOAT))
    backend.upload(book.columns)
    backend.mark(tables, groups=2, rows=False)
    assert set(cupy.launched) == {"mark_narrow_halved"}
    assert backend.download().unrealised.tolist() == [rows // 2 * 2**49] * 2
    assert rows // 2 * 2**49 > 2**63


@pytest.mark.parametrize("backwards", [False, True])
def test_runs_that_reach_over_tiles_and_blocks_are_added_up_whichever_comes_first(backwards):
    book = replace(SyntheticBook.of(20 * 1024, seed=3), groups=20)
    book.columns.group[:] = np.arange(20 * 1024) // 1500
    backend = CudaBackend(CudaDevice(FakeCupy(backwards=backwards), 0, None))
    assert_equal_sums(book, [NumpyBackend(), backend], tick=1, rows=False)


def test_a_tail_that_outgrows_its_room_is_followed_all_the_same():
    book, backend = SyntheticBook.of(12_000, seed=2, tail=9000), CudaBackend(CudaDevice(FakeCupy(), 0, None))
    tables, expected = book.tables(1), NumpyBackend()
    for size in (3000, 3001, 4100, 7000, 9000, 12_000):
        book.columns.size = size
        backend.upload(book.columns) if size == 3000 else backend.apply(book.columns)
        expected.upload(book.columns)
        for each in (backend, expected):
            each.mark(tables, groups=book.groups, rows=True)
        assert backend.download().unrealised.tolist() == expected.download().unrealised.tolist(), size
        assert backend.download().rows.tolist() == expected.download().rows.tolist(), size


def test_a_changed_row_travels_once():
    cupy, book = FakeCupy(), Book.from_positions([position(f"t{n}", "1") for n in range(9)])
    backend = CudaBackend(CudaDevice(cupy, 0, None))
    price = {"BTC/USDT": Decimal(3)}
    mark(book, price, 0, backend=backend)
    book.upsert([position("t4", "5")], 1)
    totals = [mark(book, price, 0, backend=backend).totals["USDT"] for _ in range(3)]
    assert totals == [39] * 3
    assert cupy.launched.count("rewrite_rows") == 1


def test_a_failing_driver_costs_no_tick_and_is_not_tried_again(caplog):
    cupy = FakeCupy()
    backend = Fallback(CudaBackend(CudaDevice(cupy, 0, None)), NumpyBackend)
    book = SyntheticBook.of(2000, seed=1)
    tables = book.tables(1)
    backend.upload(book.columns)
    cupy.error = RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")
    backend.mark(tables, groups=book.groups, rows=False)
    expected = NumpyBackend()
    expected.upload(book.columns)
    expected.mark(tables, groups=book.groups, rows=False)
    assert backend.download().unrealised.tolist() == expected.download().unrealised.tolist()
    cupy.error = None
    backend.upload(book.columns)
    assert backend.name == "numpy"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "pnl backend cuda failed, marks are made by numpy from now on: "
        "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"
    )


def test_a_device_that_fills_up_between_two_ticks_costs_neither():
    cupy, book = FakeCupy(), Book(compact_rows_min=10**9)
    book.upsert([position("t", "1")], 1)
    backend = Fallback(CudaBackend(CudaDevice(cupy, 0, None)), NumpyBackend)
    assert mark(book, {"BTC/USDT": Decimal(3)}, 0, backend=backend).totals["USDT"] == 3
    book.upsert([position(f"t{n}", "1", user_id=f"late{n}", currency="EUR") for n in range(6000)], 1)
    cupy.memory_bytes = -(10**9)  # also what is given back does not do
    assert mark(book, {"BTC/USDT": Decimal(3)}, 0, backend=backend).totals == {"USDT": 3, "EUR": 18_000}
    assert backend.name == "numpy"


def test_full_pinned_memory_is_no_failure_of_the_device():
    cupy = FakeCupy()
    backend = Fallback(CudaBackend(CudaDevice(cupy, 0, None)), NumpyBackend)
    cupy.pinned_bytes = 0
    for name in ("numpy", "cuda"):
        assert_equal_sums(SyntheticBook.of(100, seed=1), [NumpyBackend(), backend], tick=1, rows=False)
        assert backend.name == name
        cupy.pinned_bytes = 1 << 30


def test_a_failure_that_shows_at_the_download_is_made_good(monkeypatch):
    cuda = CudaBackend(CudaDevice(FakeCupy(), 0, None))
    backend, book = Fallback(cuda, NumpyBackend), SyntheticBook.of(2000, seed=1)
    monkeypatch.setattr(cuda, "download", Mock(side_effect=RuntimeError("cudaErrorLaunchFailure")))
    assert_equal_sums(book, [NumpyBackend(), backend], tick=1, rows=True)
    assert backend.name == "numpy"


@pytest.mark.parametrize("arithmetic", Arithmetic)
def test_a_device_that_computes_wrong_does_not_pass_its_check(arithmetic, monkeypatch):
    check_sums(CudaBackend(CudaDevice(FakeCupy(), 0, arithmetic)))
    monkeypatch.setattr(cuda_tables, "FEE_UNITS_PER_ONE", 10**7 + 1)
    with pytest.raises(Misconfigured, match="computes other sums than numpy"):
        check_sums(CudaBackend(CudaDevice(FakeCupy(), 0, arithmetic)))


def test_the_benchmark_runs_and_says_what_it_measured():
    lines = []
    measure(emulated(FakeCupy()), 3000, lines.append, rounds=1)
    assert len(lines) == 6
    for line in lines:
        assert "3,000 rows" in line
        assert "G rows/s" in line
        assert "x numpy's" in line


def test_the_benchmark_fails_where_sums_differ(monkeypatch):
    monkeypatch.setattr(cuda_tables, "FEE_UNITS_PER_ONE", 10**7 + 1)
    with pytest.raises(AssertionError, match="the sums of 300 rows, narrow, differ"):
        measure(emulated(FakeCupy()), 300, lambda _: None, rounds=1)


def test_results_are_kept_with_what_they_were_made_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(results_module, "FILE", tmp_path / "results.txt")
    Results("checks", "Emulated").line("passed  one")
    Results("marks", "Emulated").line("1 rows")
    kept = (tmp_path / "results.txt").read_text(encoding="utf-8")
    assert kept == capsys.readouterr().out
    assert [line.partition(";")[0] for line in kept.splitlines()] == [
        "== checks",
        "passed  one",
        "== marks",
        "1 rows",
    ]
    assert hashlib.sha256(KERNELS.read_bytes()).hexdigest()[:16] in kept
