"""The same marks by other means: a Decimal loop, and float64 in numpy, pandas and polars.

All of them give the sums that the pool gives: per user unrealised, profit, exposure and winners; per symbol
unrealised, long and short value. Those of float64 are wrong in the last digits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from importlib.util import find_spec
from typing import Any

import numpy as np

from bench.pnl_rows import FloatRows, Prices
from tradepool.pnl.position import Position

__all__ = ["decimal_loop", "float_marks", "with_libraries"]

Marker = Callable[[np.ndarray], object]
"""Marks at prices by symbol number."""

UNIT = Decimal("1e-8")


def decimal_loop(rows: list[Position], prices: Prices) -> object:
    """One row at a time, rounded as the book does."""
    users: dict[str, list[Any]] = defaultdict(lambda: [Decimal(0)] * 3 + [0])
    symbols: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    for row in rows:
        value = (row.amount * prices[row.symbol]).quantize(UNIT, ROUND_HALF_EVEN)
        size = abs(value)
        gain = value - (size * row.fee_rate).quantize(UNIT, ROUND_HALF_EVEN) - row.cost
        user, symbol = users[row.user_id], symbols[row.symbol]
        user[0] += gain
        user[2] += size
        if gain > 0:
            user[1] += gain
            user[3] += 1
        symbol[0] += gain
        symbol[1 if value > 0 else 2] += value
    return users, symbols


def float_marks(rows: FloatRows) -> Marker:
    """With `bincount`."""

    def mark(prices: np.ndarray) -> object:
        value = rows.amount * prices[rows.symbol]
        gain = value - np.abs(value) * rows.fee - rows.cost
        by_user = (gain, np.maximum(gain, 0), np.abs(value), gain > 0)
        by_symbol = (gain, np.maximum(value, 0), np.minimum(value, 0))
        return [np.bincount(rows.user, each) for each in by_user] + [
            np.bincount(rows.symbol, each, len(prices)) for each in by_symbol
        ]

    return mark


def with_libraries(rows: FloatRows) -> dict[str, Marker]:
    """The markers of those libraries that are installed."""
    makers = {"pandas": _pandas_marks, "polars": _polars_marks}
    return {name: maker(rows) for name, maker in makers.items() if find_spec(name)}


def _pandas_marks(rows: FloatRows) -> Marker:
    import pandas as pd  # noqa: PLC0415 - an extra of the measurements

    held = pd.DataFrame(vars(rows))

    def mark(prices: np.ndarray) -> object:
        value = held["amount"] * prices[held["symbol"]]
        gain = value - value.abs() * held["fee"] - held["cost"]
        marked = held[["user", "symbol"]].assign(
            gain=gain,
            profit=gain.clip(lower=0),
            exposure=value.abs(),
            won=gain > 0,
            long=value.clip(lower=0),
            short=value.clip(upper=0),
        )
        by_user = marked.groupby("user", sort=False)[["gain", "profit", "exposure", "won"]].sum()
        return by_user, marked.groupby("symbol", sort=False)[["gain", "long", "short"]].sum()

    return mark


def _polars_marks(rows: FloatRows) -> Marker:
    import polars as pl  # noqa: PLC0415 - an extra of the measurements

    held = pl.DataFrame(vars(rows)).lazy()
    value, gain = pl.col("value"), pl.col("gain")

    def mark(prices: np.ndarray) -> object:
        priced = held.with_columns(
            value=pl.col("amount") * pl.lit(pl.Series(prices)).gather(pl.col("symbol"))
        )
        marked = priced.with_columns(gain=value - value.abs() * pl.col("fee") - pl.col("cost"))
        by_user = marked.group_by("user").agg(
            gain.sum(),
            profit=gain.clip(lower_bound=0).sum(),
            exposure=value.abs().sum(),
            won=(gain > 0).sum(),
        )
        by_symbol = marked.group_by("symbol").agg(
            gain.sum(), long=value.clip(lower_bound=0).sum(), short=value.clip(upper_bound=0).sum()
        )
        return pl.collect_all([by_user, by_symbol])

    return mark
