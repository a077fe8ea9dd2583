"""What a CUDA device has to do right. The quick suite runs this on the emulator, `make gpu-test` on a device.

Nothing here needs pytest, or more than numpy, CuPy and `tradepool.pnl`.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np

from tests.gpu.golden import GOLDEN, TICKS, digests_of
from tests.gpu.synthetic import SyntheticBook
from tests.pnl_oracle import expected_figures, figures, position
from tradepool.pnl.book import Book
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.cuda.backend import CudaBackend
from tradepool.pnl.cuda.device import Arithmetic, CudaDevice
from tradepool.pnl.fallback import Fallback
from tradepool.pnl.marks import mark
from tradepool.pnl.protocol import Backend
from tradepool.pnl.sums import Sums

__all__ = ["CHECKS", "Check", "Machine", "assert_equal_sums", "large_books_have_the_sums_of_numpy"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the checks run."""

    cupy: Any
    """The module `cupy`, or what stands in for it."""
    rows: int
    """Rows of the large books."""
    with_memory: Callable[[int], Any]
    """A context in which the device has only so many bytes left."""
    number: int = 0
    repeats: int = 200
    """How often a tick is made again."""

    def device(self, arithmetic: Arithmetic) -> CudaDevice:
        """The device, made to divide in one way."""
        return CudaDevice(self.cupy, self.number, arithmetic)


Check = Callable[[Machine, Arithmetic], None]


def golden_marks_are_the_same_here(machine: Machine, arithmetic: Arithmetic) -> None:
    """Two books, hard rows among them, give the digests that the oracle gave elsewhere."""
    assert digests_of(CudaBackend(machine.device(arithmetic))) == json.loads(
        GOLDEN.read_text(encoding="utf-8")
    )


def large_books_have_the_sums_of_numpy(machine: Machine, arithmetic: Arithmetic) -> None:
    """Through every kernel: small rows and large ones, sums within int64 and beyond, fees and none."""
    device = machine.device(arithmetic)
    cases: tuple[dict[str, Any], ...] = (
        {"notional_max": 1e4},
        {"notional_max": 1e4, "tail": machine.rows // 9},
        {"notional_max": 1e7, "tail": 5},
        {"notional_max": 2e9, "tail": machine.rows // 20},
        {"notional_max": 1e13},
        {"symbols": 1},
        {"symbols": 1500, "tail": machine.rows},
    )
    for seed, case in enumerate(cases):
        book = SyntheticBook.of(machine.rows - seed, seed=seed, **case)
        for rows in (False, True):
            assert_equal_sums(book, [NumpyBackend(), CudaBackend(device)], tick=seed, rows=rows)


def groups_and_codes_are_added_up(machine: Machine, arithmetic: Arithmetic) -> None:
    """One row a group, one group of all rows, lengths around those of a lane, a warp, a tile; every code."""
    device = machine.device(arithmetic)
    book = replace(SyntheticBook.of(machine.rows, seed=3), groups=machine.rows)
    for length in (1, 2, 3, 4, 5, 31, 32, 127, 128, 129, 1023, 1024, 1025, 3000, machine.rows):
        book.columns.group[:] = np.arange(machine.rows) // length
        assert_equal_sums(book, [NumpyBackend(), CudaBackend(device)], tick=1, rows=False)
    many = SyntheticBook.of(machine.rows, seed=4, symbols=1500)
    many.columns.lots[:] = np.arange(machine.rows) % 1000 - 500
    many.columns.code[:] = np.arange(machine.rows) % 3000
    assert_equal_sums(many, [NumpyBackend(), CudaBackend(device)], tick=1, rows=False)
    for tiny in range(6):
        assert_equal_sums(
            SyntheticBook.of(tiny, seed=tiny), [NumpyBackend(), CudaBackend(device)], tick=1, rows=True
        )


def the_device_follows_its_book(machine: Machine, arithmetic: Arithmetic) -> None:
    """New, changed and removed rows, a tail that outgrows its room, and compaction, tick after tick."""
    backend = CudaBackend(machine.device(arithmetic))
    rng = random.Random(5)
    book = Book(compact_rows_min=10**9)
    held: dict[str, Any] = {}
    for version in range(12):
        count = 4500 if version == 4 else rng.choice((0, 1, 40))
        rows = [
            _row(rng, f"t{rng.randrange(500) if rng.random() < 0.5 else len(held) + n}") for n in range(count)
        ]
        rows = list({row.trade_id: row for row in rows}.values())
        gone = rng.sample(sorted(held), min(len(held), rng.choice((0, 0, 30))))
        book.upsert(rows, 2 * version)
        book.remove(gone)
        held |= {row.trade_id: row for row in rows}
        for trade_id in gone:
            del held[trade_id]
        if version in {2, 7}:
            book.compact()
        prices = TICKS["moved" if version % 2 else "all priced"]
        marks = figures(mark(book, prices, 0, backend=backend, rows=True))
        assert marks == figures(mark(book, prices, 0, rows=True)), f"step {version}"
    assert _without_the_flat(marks) == _without_the_flat(expected_figures(held.values(), prices))


def many_ticks_come_out_the_same(machine: Machine, arithmetic: Arithmetic) -> None:
    """A race would show now and then: one table, marked over and over, gives the same sums each time."""
    book, backend = SyntheticBook.of(machine.rows, seed=6, tail=machine.rows // 10), NumpyBackend()
    tables, device = book.tables(1), CudaBackend(machine.device(arithmetic))
    for each in (backend, device):
        each.upload(book.columns)
    backend.mark(tables, groups=book.groups, rows=False)
    expected = _lists(backend.download())
    for tick in range(machine.repeats):
        device.mark(tables, groups=book.groups, rows=False)
        assert _lists(device.download()) == expected, f"tick {tick}"


def one_code_has_most_rows(machine: Machine, arithmetic: Arithmetic) -> None:
    """All rows of a code, or all but a few, of codes with sums in shared memory and of one without."""
    device = machine.device(arithmetic)
    for code, others in product((2, 1023, 1024), (0, 3)):
        book = SyntheticBook.of(machine.rows, seed=code, symbols=1500)
        book.columns.lots[:] = np.arange(machine.rows) % 1000 - 500
        book.columns.code[:] = code
        if others:
            book.columns.code[::others] = np.arange(len(book.columns.code[::others])) % 3000
        assert_equal_sums(book, [NumpyBackend(), CudaBackend(device)], tick=1, rows=False)


def any_thread_may_mark(machine: Machine, arithmetic: Arithmetic) -> None:
    """A device opened by one thread is used by others, which have no context of their own yet."""
    book, device = SyntheticBook.of(3000, seed=7), machine.device(arithmetic)
    for _ in range(2):
        with ThreadPoolExecutor(1) as thread:
            backends = [NumpyBackend(), CudaBackend(device)]
            thread.submit(assert_equal_sums, book, backends, tick=1, rows=True).result()


def a_full_device_falls_back(machine: Machine, arithmetic: Arithmetic) -> None:
    """Marks go on elsewhere with one line in the log, and on the device again once there is room."""
    device = machine.device(arithmetic)
    small, large = SyntheticBook.of(100, seed=1), SyntheticBook.of(machine.rows, seed=2)
    backend = Fallback(CudaBackend(device), NumpyBackend)
    assert_equal_sums(small, [NumpyBackend(), backend], tick=1, rows=False)
    assert backend.name == "cuda"
    with logged_lines() as lines, machine.with_memory(20 * machine.rows):
        assert_equal_sums(large, [NumpyBackend(), backend], tick=1, rows=True)
        assert backend.name == "numpy"
    assert len(lines) == 1, lines
    assert "marks are made by numpy until the book is compacted" in lines[0]
    assert "emory" in lines[0]
    assert_equal_sums(large, [NumpyBackend(), backend], tick=1, rows=False)
    assert backend.name == "cuda"


CHECKS: tuple[Check, ...] = (
    golden_marks_are_the_same_here,
    large_books_have_the_sums_of_numpy,
    groups_and_codes_are_added_up,
    the_device_follows_its_book,
    many_ticks_come_out_the_same,
    one_code_has_most_rows,
    any_thread_may_mark,
    a_full_device_falls_back,
)


def assert_equal_sums(book: SyntheticBook, backends: list[Backend], *, tick: int, rows: bool) -> None:
    """All of `backends` give the same sums of one tick."""
    tables = book.tables(tick)
    results = []
    for backend in backends:
        backend.upload(book.columns)
        backend.mark(tables, groups=book.groups, rows=rows)
        results.append(_lists(backend.download()))
    for result in results[1:]:
        for name, expected in results[0].items():
            assert result[name] == expected, f"{name} of {book.columns.size} rows"


@contextmanager
def logged_lines() -> Iterator[list[str]]:
    """Collects what the backends log as a warning."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    collector, log = Collector(logging.WARNING), logging.getLogger("tradepool.pnl")
    log.addHandler(collector)
    try:
        yield lines
    finally:
        log.removeHandler(collector)


def _row(rng: random.Random, trade_id: str) -> Any:
    return position(
        trade_id,
        f"{rng.uniform(-5, 5):.6f}",
        f"{rng.uniform(-9, 9):.8f}",
        user_id=f"u{rng.randrange(40)}",
        symbol=rng.choice(("BTC/USDT", "SHIB/USDT", "TIE/USDT")),
        fee_rate=Decimal(rng.choice((0, 4, -2))).scaleb(-4),
    )


def _without_the_flat(marked: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of who has any: a book may or may not name the others."""
    users = {key: values for key, values in marked["users"].items() if any(values)}
    return {**marked, "users": users}


def _lists(sums: Sums) -> dict[str, list[int] | None]:
    names = ("unrealised", "profit", "exposure", "code_value", "code_unrealised")
    limbs = {name: getattr(sums, name).tolist() for name in names}
    rows = None if sums.rows is None else sums.rows.tolist()
    return {**limbs, "winners": sums.winners.tolist(), "rows": rows}
