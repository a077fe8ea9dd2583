"""Large books out of a random generator, made in numpy because positions one by one would take minutes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from tradepool.pnl.book.columns import Columns
from tradepool.pnl.book.lanes import FeeClasses, Lane, Lanes
from tradepool.pnl.tables import Tables, build_tables

__all__ = ["SyntheticBook"]

ROWS_PER_GROUP = 10
FEES = (Decimal(0), Decimal("0.0002"), Decimal("0.0004"), Decimal("-0.0001"))
LOTS_PER_COIN = 10**8


@dataclass(frozen=True, kw_only=True)
class SyntheticBook:
    """Columns, and what a tick's tables are made of."""

    columns: Columns
    groups: int
    lanes: Lanes
    fees: FeeClasses
    cost_max: int

    @classmethod
    def of(
        cls, rows: int, *, seed: int, symbols: int = 300, notional_max: float = 1e5, tail: int = 0
    ) -> SyntheticBook:
        """`rows` positions of 3 to `notional_max` quote, some ten a user, the last `tail` in no order."""
        rng = np.random.default_rng(seed)
        lanes, fees = Lanes(), FeeClasses()
        numbers = [lanes.number(Lane(f"S{n}/USDT", "USDT", n % 7 == 0, 8)) for n in range(symbols)]
        classes = [fees.number(rate) for rate in FEES]
        # Few symbols have most of the rows, as in real books.
        lane = np.array(numbers)[(symbols * rng.random(rows) ** 3).astype(np.int64)]
        price = np.array([float(quote) for quote in _prices(symbols, 0).values()])[lane - 1]
        notional = 10 ** rng.uniform(0.5, np.log10(notional_max), rows) * rng.choice([-1, 1], rows)
        is_inverse = np.array([each.inverse for each in lanes.keys])[lane]
        coins = np.where(is_inverse, -notional * price, notional / price)
        lots = _integers(coins * LOTS_PER_COIN)
        group = np.cumsum(rng.random(rows) < 1 / ROWS_PER_GROUP).astype(np.int32)
        groups = int(group[-1]) + 1 if rows else 0
        tail = min(tail, rows)
        group[rows - tail :] = rng.integers(0, max(1, groups), tail)
        arrays = {
            "group": group,
            "code": (2 * lane + (lots < 0)).astype(np.int32),
            "lots": lots,
            "cost": _integers(notional * LOTS_PER_COIN * rng.uniform(0.9, 1.1, rows)),
            "fee_class": rng.choice(np.array(classes, np.uint16), rows),
            "version": np.zeros(rows, np.int64),
            "slot": np.zeros(rows, np.int32),
        }
        largest = np.zeros(len(lanes.keys), np.int64)
        np.maximum.at(largest, lane, np.abs(lots))
        for number, count in enumerate(np.bincount(lane, minlength=len(lanes.keys)).tolist()):
            lanes.counts[number], lanes.lots_max[number] = count, int(largest[number])
        return cls(
            columns=Columns(arrays, size=rows, sorted_size=rows - tail),
            groups=groups,
            lanes=lanes,
            fees=fees,
            cost_max=int(np.abs(arrays["cost"]).max(initial=0)),
        )

    def tables(self, tick: int) -> Tables:
        """The tables of a tick, whose prices are up to a hundredth off those of tick 0."""
        return build_tables(self.lanes, self.fees, _prices(len(self.lanes.keys) - 1, tick), self.cost_max)


def _integers(numbers: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(numbers), -(2.0**61), 2.0**61).astype(np.int64)


def _prices(symbols: int, tick: int) -> dict[str, Decimal]:
    level = 10 ** np.random.default_rng(symbols).uniform(-4, 5, symbols)
    moved = level * (1 + np.random.default_rng(tick).uniform(-0.01, 0.01, symbols) * bool(tick))
    return {f"S{n}/USDT": Decimal(f"{price:.7g}") for n, price in enumerate(moved.tolist())}
