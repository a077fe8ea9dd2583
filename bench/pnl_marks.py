"""How many positions a second the pool marks, against a Decimal loop and plain float64 numpy.

    python bench/pnl_marks.py [ROWS ...]

One process, one run, the same positions and prices: numpy and compiled loops on one core and on all. All
give the same sums: per user unrealised, profit, exposure and winners; per symbol unrealised, long and short
value. The denominators are the Decimal loop, which rounds as the book does, over up to DECIMAL_ROWS of the
rows; float64 numpy with `bincount`, which is wrong in the last digits (the share of its rows that are off by
10⁻⁸ or more is printed); and for the compiled loops what one core reads from memory, measured in the same
rounds over an array of the book's size. Medians over rounds that alternate. `mark` is everything from prices
to Marks; reading all users out of the Marks as Decimals comes on top and is timed beside it.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np

from tradepool.pnl.book import Book
from tradepool.pnl.marks import Marks, mark
from tradepool.pnl.numba_backend import NumbaBackend
from tradepool.pnl.numpy_backend import NumpyBackend
from tradepool.pnl.position import Position

ROUNDS = 9
DECIMAL_ROWS = 100_000
SYMBOLS = 300
ROWS_PER_USER = 10
FEES = ("0.0002", "0.0004", "0.001")
UNIT = Decimal("1e-8")
ROW_BYTES = 22
"""What a mark reads of a row: lots, cost, code and fee class."""
CORES = len(os.sched_getaffinity(0))
DENOMINATORS = ("Decimal", "float64", "memory")
Prices = dict[str, Decimal]


def market(seed: int) -> Prices:
    """Prices from 10⁻⁴ to 10⁵ with seven digits each."""
    rng = np.random.default_rng(seed)
    return {
        f"S{n}/USDT": Decimal(f"{price:.7g}") for n, price in enumerate(10 ** rng.uniform(-4, 5, SYMBOLS))
    }


def positions(count: int, prices: Prices) -> list[Position]:
    """Longs and shorts of 3 to 10⁵ quote, most of them in few symbols, in no order."""
    rng = np.random.default_rng(count)
    symbols = list(prices)
    notional = 10 ** rng.uniform(0.5, 5, count) * rng.choice([-1, 1], count)
    symbol = (SYMBOLS * rng.random(count) ** 3).astype(int).tolist()
    user = rng.integers(0, count // ROWS_PER_USER, count).tolist()
    return [
        Position(
            trade_id=f"t{n}",
            user_id=f"u{user[n]}",
            currency="USDT",
            symbol=symbols[symbol[n]],
            market="linear",
            amount=Decimal(f"{value / float(prices[symbols[symbol[n]]]):.6f}"),
            cost=Decimal(f"{value:.8f}"),
            fee_rate=Decimal(FEES[n % len(FEES)]),
        )
        for n, value in enumerate(notional.tolist())
    ]


def decimal_loop(rows: list[Position], prices: Prices) -> object:
    """The same sums, one row at a time."""
    users: dict[str, list[Any]] = defaultdict(lambda: [Decimal(0)] * 3 + [0])
    symbols: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    for row in rows:
        value = (row.amount * prices[row.symbol]).quantize(UNIT, ROUND_HALF_EVEN)
        size = abs(value)
        unrealised = value - (size * row.fee_rate).quantize(UNIT, ROUND_HALF_EVEN) - row.cost
        user, symbol = users[row.user_id], symbols[row.symbol]
        user[0] += unrealised
        user[2] += size
        if unrealised > 0:
            user[1] += unrealised
            user[3] += 1
        symbol[0] += unrealised
        symbol[1 if value > 0 else 2] += value
    return users, symbols


@dataclass(frozen=True)
class Floats:
    """The same positions as float64 columns."""

    amount: np.ndarray
    cost: np.ndarray
    fee: np.ndarray
    user: np.ndarray
    symbol: np.ndarray
    price: np.ndarray

    @classmethod
    def of(cls, rows: list[Position], prices: Prices) -> Floats:
        """Columns of `rows` in their order."""
        symbols = {symbol: number for number, symbol in enumerate(prices)}
        return cls(
            np.array([float(row.amount) for row in rows]),
            np.array([float(row.cost) for row in rows]),
            np.array([float(row.fee_rate) for row in rows]),
            np.array([int(row.user_id[1:]) for row in rows]),
            np.array([symbols[row.symbol] for row in rows]),
            np.array([float(price) for price in prices.values()]),
        )

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Value and unrealised PnL of every row."""
        value = self.amount * self.price[self.symbol]
        return value, value - np.abs(value) * self.fee - self.cost

    def mark(self) -> list[np.ndarray]:
        """The same sums."""
        value, unrealised = self.rows()
        by_user = (unrealised, np.maximum(unrealised, 0), np.abs(value), unrealised > 0)
        by_symbol = (unrealised, np.maximum(value, 0), np.minimum(value, 0))
        return [np.bincount(self.user, each) for each in by_user] + [
            np.bincount(self.symbol, each, len(self.price)) for each in by_symbol
        ]


def float_errors(rows: list[Position], floats: Floats, marks: Marks) -> float:
    """The share of rows whose float64 PnL, rounded to 10⁻⁸, is another one."""
    exact = marks.rows or {}
    rounded = np.rint(floats.rows()[1] * 10**8).astype(np.int64).tolist()
    wrong = sum(units != int(exact[row.trade_id].scaleb(8)) for row, units in zip(rows, rounded, strict=True))
    return float(wrong / len(rows))


def rows_per_s(work: Callable[[], object], rows: int) -> float:
    """`rows` over the time that `work` takes."""
    started = time.perf_counter()
    work()
    taken_s: float = time.perf_counter() - started
    return rows / taken_s


def read_memory(words: np.ndarray) -> Callable[[], object]:
    """Reads every word once and keeps their bitwise or: one core, and nothing but memory to wait for."""
    return lambda: np.bitwise_or.reduce(words)


def measure(count: int) -> None:
    """Alternate between all of them over one book and print the medians."""
    prices = market(1)
    rows = positions(count, prices)
    gc.collect()
    gc.freeze()
    build = rows_per_s(lambda: Book.from_positions(rows), count)
    book, floats = Book.from_positions(rows), Floats.of(rows, prices)
    backends = {
        "numpy": NumpyBackend(),
        "numba": NumbaBackend(),
        "numba, all cores": NumbaBackend(threads=CORES),
    }
    sample = rows[:DECIMAL_ROWS]
    marks = [mark(book, prices, 0, backend=each, rows=True) for each in backends.values()]
    assert all(dict(each.symbols) == dict(marks[0].symbols) for each in marks), "backends disagree"
    works = {name: (lambda each=each: mark(book, prices, 0, backend=each)) for name, each in backends.items()}
    works["numba, users read"] = lambda: dict(mark(book, prices, 0, backend=backends["numba"]).users)
    works["memory"] = read_memory(np.ones(count * ROW_BYTES // 8, np.int64))
    works["float64"] = floats.mark
    rates: dict[str, list[float]] = {name: [] for name in (*works, "Decimal")}
    for _ in range(ROUNDS):
        rates["Decimal"].append(rows_per_s(lambda: decimal_loop(sample, prices), len(sample)))
        for name, work in works.items():
            rates[name].append(rows_per_s(work, count))
    print(f"{count} rows, {count // ROWS_PER_USER} users, {SYMBOLS} symbols, {ROUNDS} rounds, medians:")
    for name, values in rates.items():
        speed = statistics.median(values)
        ratios = ", ".join(f"{ratio(values, rates[other]):.3g}x {other}" for other in DENOMINATORS)
        print(f"  {name:<18}{speed / 1e6:9.3f} M rows/s {1e9 / speed:10.1f} ns a row  {ratios}")
    print(f"  of float64's rows {float_errors(rows, floats, marks[0]):.1%} are wrong")
    print(f"  building the book took {1e6 / build:.1f} µs a row")


def ratio(values: list[float], others: list[float]) -> float:
    """The median over rounds of one rate over another."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


if __name__ == "__main__":
    for given in sys.argv[1:] or ("100000", "1000000"):
        measure(int(given))
