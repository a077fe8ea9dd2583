"""How many positions a second the pool marks, against a Decimal loop and float64 in numpy, pandas and polars.

    python bench/pnl_marks.py [ROWS ...]

One process, one run, the same positions and prices, medians over rounds that alternate. At every mark all
prices are other ones, but for the ticks that move one symbol in a hundred. `mark` is everything from prices
to Marks, `loops` the compiled loops alone. The denominators: the Decimal loop over up to DECIMAL_ROWS of the
rows; float64 (pnl_rivals.py), of whose rows the share that is off by 10⁻⁸ or more is printed; and what one
core reads from memory, over an array of the columns' size, which at 10⁵ rows a cache still holds. pandas and
polars come with the extra `[bench]`; polars takes all cores. The targets against these two and float64 are
for 10⁷ rows: some two minutes.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from itertools import cycle

import numpy as np

from bench.measurement import seconds
from bench.pnl_rivals import decimal_loop, float_marks, with_libraries
from bench.pnl_rows import FloatRows, MadeUpRows, Prices, market
from tradepool.pnl.backend import Backend
from tradepool.pnl.book import Book
from tradepool.pnl.cpu.numba_backend import NumbaBackend
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.marks import mark
from tradepool.pnl.tables import build_tables

ROUNDS = 9
DECIMAL_ROWS = 100_000
ROW_BYTES = 22
"""What a mark reads of a row: lots, cost, code and fee class."""
CORES = len(os.sched_getaffinity(0))
MOVED_SHARE = 100
FEW_TICKS = 30
DENOMINATORS = ("Decimal", "float64", "pandas", "polars", "memory")
TARGETS = {
    ("numba loops", "memory"): 0.25,
    ("numpy mark", "Decimal"): 60.0,
    ("numba mark", "pandas"): 15.0,
    ("numba mark", "polars"): 8.0,
    ("numba mark", "float64"): 10.0,
}
FEW_TARGET_MS = 0.02
Work = Callable[[], object]


def moved(prices: Prices) -> Prices:
    """All of them a thousandth higher, with seven digits as before."""
    return {symbol: Decimal(f"{price * Decimal('1.001'):.7g}") for symbol, price in prices.items()}


def marking(book: Book, backend: Backend, vectors: tuple[Prices, Prices]) -> Work:
    """Marks of the whole book, at one vector of prices and at the other in turn."""
    turns = cycle(vectors)
    return lambda: mark(book, next(turns), 0, backend=backend)


def loops(book: Book, backend: Backend, vectors: tuple[Prices, Prices]) -> Work:
    """The same without what is around the backend."""
    tables = cycle([build_tables(book.lanes, book.fees, prices, book.cost_max) for prices in vectors])
    groups = len(book.groups.keys)

    def work() -> object:
        if backend.generation is not book.columns.generation:
            backend.upload(book.columns)
        backend.mark(next(tables), groups=groups, rows=False)
        return backend.download()

    return work


def read_memory(words: np.ndarray) -> Work:
    """Reads every word once and keeps their bitwise or: one core, and nothing but memory to wait for."""
    return lambda: np.bitwise_or.reduce(words)


def works_of(book: Book, floats: FloatRows, vectors: tuple[Prices, Prices]) -> dict[str, Work]:
    """What is measured over all rows, by name."""
    works = {
        "numba loops": loops(book, NumbaBackend(), vectors),
        "numba mark": marking(book, NumbaBackend(), vectors),
        f"numba mark, {CORES} cores": marking(book, NumbaBackend(threads=CORES), vectors),
        "numpy mark": marking(book, NumpyBackend(), vectors),
        "memory": read_memory(np.ones(len(floats.user) * ROW_BYTES // 8, np.int64)),
    }
    arrays = cycle([np.array([float(price) for price in prices.values()]) for prices in vectors])
    rivals = {"float64": float_marks(floats)} | with_libraries(floats)
    return works | {name: (lambda rival=rival: rival(next(arrays))) for name, rival in rivals.items()}


def few_ms(book: Book, prices: Prices, backend: Backend) -> tuple[float, float, int]:
    """Median time of a tick that moves one symbol in a hundred: whole, and the backend's part; its rows."""
    rng, symbols, groups = np.random.default_rng(7), list(prices), len(book.groups.keys)
    lanes, counts = np.array([lane.symbol for lane in book.lanes.keys]), np.asarray(book.lanes.counts)
    times: dict[str, list[float]] = {"whole": [], "part": []}
    rows, now = [], dict(prices)
    mark(book, now, 0, backend=backend)
    for _ in range(FEW_TICKS):
        for name, values in times.items():
            chosen = rng.choice(symbols, len(symbols) // MOVED_SHARE, replace=False).tolist()
            now |= moved({symbol: now[symbol] for symbol in chosen})
            tables = build_tables(book.lanes, book.fees, now, book.cost_max)
            work = marking(book, backend, (now, now)) if name == "whole" else None
            work = work or partial(backend.mark, tables, groups=groups, rows=False)
            values.append(seconds(work))
            rows.append(int(counts[np.isin(lanes, chosen)].sum()))
    # The first one sorts the rows by symbol.
    whole, part = (statistics.median(values[1:]) * 1e3 for values in times.values())
    return whole, part, int(statistics.median(rows))


def float_errors(book: Book, floats: FloatRows, prices: Prices) -> float:
    """The share of rows that float64 gets wrong, with value and fee rounded to 10⁻⁸ as the book does."""
    backend = NumbaBackend()
    backend.upload(book.columns)
    tables = build_tables(book.lanes, book.fees, prices, book.cost_max)
    backend.mark(tables, groups=len(book.groups.keys), rows=True)
    by_symbol = np.array([float(price) for price in prices.values()])
    value = np.rint(floats.amount * by_symbol[floats.symbol] * 10**8)
    gain = value - np.rint(np.abs(value) * floats.fee) - np.rint(floats.cost * 10**8)
    return float((gain.astype(np.int64) != backend.download().rows).mean())


def check(book: Book, prices: Prices) -> None:
    """Both backends give the same figures."""
    marks = [mark(book, prices, 0, backend=backend) for backend in (NumbaBackend(), NumpyBackend())]
    assert dict(marks[0].symbols) == dict(marks[1].symbols), "backends disagree"


def measure(count: int) -> None:
    """Alternate between all of them over one book and print the medians."""
    prices = market(1)
    made_up = MadeUpRows.of(count, prices)
    book, floats = made_up.book(), made_up.floats()
    sample = list(made_up.positions(min(count, DECIMAL_ROWS)))
    check(book, prices)
    gc.collect()
    gc.freeze()
    works = works_of(book, floats, (prices, moved(prices)))
    rates: dict[str, list[float]] = {name: [] for name in (*works, "Decimal")}
    for work in works.values():
        work()
    for _ in range(ROUNDS):
        rates["Decimal"].append(len(sample) / seconds(lambda: decimal_loop(sample, prices)))
        for name, work in works.items():
            rates[name].append(count / seconds(work))
    print(f"{count} rows, {len(book.groups.keys)} users, {len(prices)} symbols, {ROUNDS} rounds, medians:")
    show(rates)
    print(f"  of float64's rows {float_errors(book, floats, prices):.1%} are wrong")
    for backend in (NumbaBackend(), NumpyBackend()):
        whole, part, rows = few_ms(book, prices, backend)
        print(
            f"  {backend.name}, one symbol in {MOVED_SHARE} moved, {rows} rows: mark {whole:.3f} ms,"
            f" backend alone {part:.3f} ms (target {FEW_TARGET_MS})"
        )


def show(rates: dict[str, list[float]]) -> None:
    """A line for each, then the targets."""
    for name, values in rates.items():
        speed = statistics.median(values)
        ratios = (f"{ratio(values, rates[other]):.3g}x {other}" for other in DENOMINATORS if other in rates)
        print(f"  {name:<20}{speed / 1e6:9.2f} M rows/s {1e9 / speed:10.1f} ns a row  {', '.join(ratios)}")
    for (name, other), target in TARGETS.items():
        if other in rates:
            print(f"  {name} of {other}: {ratio(rates[name], rates[other]):.3g}, target {target:g}")
        else:
            print(f"  {name} of {other}: {other} is not installed; pip install 'tradepool[bench]'")


def ratio(values: list[float], others: list[float]) -> float:
    """The median over rounds of one rate over another."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


if __name__ == "__main__":
    for given in sys.argv[1:] or ("100000", "1000000"):
        measure(int(given))
