"""Open positions made up as columns, as a book takes them and as float64: ten million fit in memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from tradepool.pnl.book import Book
from tradepool.pnl.book.columns import COLUMN_TYPES, Columns
from tradepool.pnl.book.lanes import Lane
from tradepool.pnl.position import Position

__all__ = ["FEES", "FloatRows", "MadeUpRows", "Prices", "market"]

FEES = ("0.0002", "0.0004", "0.001")
Prices = dict[str, Decimal]

_EXPONENT = 8
_ROWS_PER_USER = 10


def market(seed: int, symbols: int = 300) -> Prices:
    """Prices from 10⁻⁴ to 10⁵ with seven digits each."""
    rng = np.random.default_rng(seed)
    return {
        f"S{n}/USDT": Decimal(f"{price:.7g}") for n, price in enumerate(10 ** rng.uniform(-4, 5, symbols))
    }


@dataclass(frozen=True)
class FloatRows:
    """Positions as float64 columns, sorted by user."""

    amount: np.ndarray
    cost: np.ndarray
    fee: np.ndarray
    user: np.ndarray
    symbol: np.ndarray


@dataclass(frozen=True)
class MadeUpRows:
    """Longs and shorts of 3 to 10⁵ quote, most of them in few symbols, ten a user, sorted by user."""

    lots: np.ndarray
    cost: np.ndarray
    fee_class: np.ndarray
    user: np.ndarray
    symbol: np.ndarray
    symbols: list[str]

    @classmethod
    def of(cls, count: int, prices: Prices) -> MadeUpRows:
        """That many, at entry prices a little off `prices`."""
        rng = np.random.default_rng(count)
        notional = 10 ** rng.uniform(0.5, 5, count) * rng.choice([-1, 1], count)
        symbol = (len(prices) * rng.random(count) ** 3).astype(np.int32)
        entry = np.array([float(price) for price in prices.values()])[symbol] * rng.uniform(0.9, 1.1, count)
        # Six decimals: lots are in 10⁻⁸.
        lots = np.rint(notional / entry * 10**6).astype(np.int64) * 100
        lots[lots == 0] = 100
        return cls(
            lots=lots,
            cost=np.rint(notional * 10**8).astype(np.int64),
            fee_class=rng.integers(1, 1 + len(FEES), count).astype(np.uint16),
            user=np.sort(rng.integers(0, count // _ROWS_PER_USER, count)),
            symbol=symbol,
            symbols=list(prices),
        )

    def book(self) -> Book:
        """A book of them, whose trades have no ids: it can be marked and no more."""
        book = Book()
        for fee in FEES:
            book.fees.number(Decimal(fee))
        lanes = np.array(
            [
                book.lanes.number(Lane(symbol, "USDT", inverse=False, exponent=_EXPONENT))
                for symbol in self.symbols
            ]
        )
        users, group = np.unique(self.user, return_inverse=True)
        for user in users.tolist():
            book.groups.number((f"u{user}", "USDT"))
        lane, count = lanes[self.symbol], len(self.lots)
        cells = {
            "group": group,
            "code": 2 * lane + (self.lots < 0),
            "lots": self.lots,
            "cost": self.cost,
            "fee_class": self.fee_class,
            "version": np.zeros(count),
            "slot": np.arange(count),
        }
        columns = {name: cells[name].astype(kind, copy=False) for name, kind in COLUMN_TYPES.items()}
        book.columns = Columns(columns, size=count, sorted_size=count)
        lots_max = np.zeros(len(book.lanes.keys), np.int64)
        np.maximum.at(lots_max, lane, np.abs(self.lots))
        book.lanes.lots_max = like(book.lanes.lots_max, lots_max)
        book.lanes.counts = like(book.lanes.counts, np.bincount(lane, minlength=len(lots_max)))
        book.groups.counts = like(book.groups.counts, np.bincount(group))
        book.cost_max = int(np.abs(self.cost).max())
        return book

    def floats(self) -> FloatRows:
        """The same as float64."""
        return FloatRows(
            amount=self.lots / 10**_EXPONENT,
            cost=self.cost / 10**8,
            fee=np.array([0.0, *map(float, FEES)])[self.fee_class],
            user=self.user,
            symbol=self.symbol,
        )

    def positions(self, count: int) -> Iterator[Position]:
        """The first `count` of them."""
        for n in range(count):
            yield Position(
                trade_id=f"t{n}",
                user_id=f"u{self.user[n]}",
                currency="USDT",
                symbol=self.symbols[self.symbol[n]],
                market="linear",
                amount=Decimal(int(self.lots[n])).scaleb(-_EXPONENT),
                cost=Decimal(int(self.cost[n])).scaleb(-8),
                fee_rate=Decimal(FEES[self.fee_class[n] - 1]),
            )


def like(numbers: object, values: np.ndarray) -> list[int] | array[int]:
    """`values` in the type of `numbers`."""
    return array("q", values.astype(np.int64).tobytes()) if isinstance(numbers, array) else values.tolist()
