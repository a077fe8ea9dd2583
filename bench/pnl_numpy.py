"""How many positions a second one core marks, against a Decimal loop and plain float64 numpy.

    python bench/pnl_numpy.py [ROWS ...]

One process, one run, the same positions and prices. All three give the same sums: per user unrealised,
profit, exposure and winners; per symbol unrealised, long and short value. The denominators are the Decimal
loop, which rounds as the book does, over up to DECIMAL_ROWS of the rows, and float64 numpy with `bincount`,
which is wrong in the last digits: the share of its rows that are off by 10⁻⁸ or more is printed. Medians
over rounds that alternate between the three. `mark` is everything from prices to Marks; reading all users
out of the Marks as Decimals comes on top and is timed beside it.
"""

from __future__ import annotations

import gc
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
from tradepool.pnl.numpy_backend import NumpyBackend
from tradepool.pnl.position import Position

ROUNDS = 9
DECIMAL_ROWS = 100_000
SYMBOLS = 300
ROWS_PER_USER = 10
FEES = ("0.0002", "0.0004", "0.001")
UNIT = Decimal("1e-8")
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


def measure(count: int) -> None:
    """Alternate between the three over one book and print the medians."""
    prices = market(1)
    rows = positions(count, prices)
    gc.collect()
    gc.freeze()
    build = rows_per_s(lambda: Book.from_positions(rows), count)
    book, backend, floats = Book.from_positions(rows), NumpyBackend(), Floats.of(rows, prices)
    sample = rows[:DECIMAL_ROWS]
    marks = mark(book, prices, 0, backend=backend, rows=True)
    exact, plain, loop, read = [], [], [], []
    for _ in range(ROUNDS):
        loop.append(rows_per_s(lambda: decimal_loop(sample, prices), len(sample)))
        plain.append(rows_per_s(floats.mark, count))
        exact.append(rows_per_s(lambda: mark(book, prices, 0, backend=backend), count))
        read.append(rows_per_s(lambda: dict(mark(book, prices, 0, backend=backend).users), count))
    ratios = [[e / other for e, other in zip(exact, each, strict=True)] for each in (loop, plain)]
    print(f"{count} rows, {count // ROWS_PER_USER} users, {SYMBOLS} symbols, {ROUNDS} rounds, medians:")
    for name, values in (("mark", exact), ("mark, users read", read), ("float64", plain), ("Decimal", loop)):
        speed = statistics.median(values)
        print(f"  {name:<17}{speed / 1e6:9.3f} M rows/s {1e9 / speed:10.1f} ns a row")
    to_loop, to_plain = map(statistics.median, ratios)
    print(f"  mark is {to_loop:.1f}x the Decimal loop and {to_plain:.2f}x float64,", end=" ")
    print(f"of whose rows {float_errors(rows, floats, marks):.1%} are wrong")
    print(f"  building the book took {1e6 / build:.1f} µs a row")


if __name__ == "__main__":
    for given in sys.argv[1:] or ("100000", "1000000"):
        measure(int(given))
