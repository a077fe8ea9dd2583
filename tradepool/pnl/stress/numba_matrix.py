"""Net positions valued in every scenario, in compiled loops; needs the extra `[fast]`.

The scenarios are the inner loop: what it reads lies in one row of each table, so it vectorises without
gathers.
"""

from __future__ import annotations

from typing import Any

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE
from tradepool.pnl.cpu.numba_cache import compiled
from tradepool.pnl.cpu.numba_division import narrow, wide
from tradepool.pnl.stress.numpy_matrix import MatrixRows
from tradepool.pnl.stress.tables import ScenarioTables

__all__ = ["add_values"]

_FEE_RECIPROCAL = 1 / FEE_UNITS_PER_ONE


def add_values(matrix: Ints, rows: MatrixRows, tables: ScenarioTables) -> None:
    """Add the value less the exit fee of each of `rows` in every scenario to its row of `matrix`."""
    by_lane = (tables.multiplier, tables.divisor, tables.quotient, tables.reciprocal)
    _add_rows(matrix, tuple(rows), by_lane)


@compiled
def _add_rows(matrix: Ints, rows: Any, by_lane: Any) -> None:
    at, lanes, lots, rates, is_wide = rows
    multipliers, divisors, quotients, reciprocals = by_lane
    for row in range(len(lots)):
        lane = lanes[row]
        of_lane = (multipliers[lane], divisors[lane], quotients[lane], reciprocals[lane])
        if is_wide[row]:
            _add_wide(matrix[at[row]], lots[row], rates[row], of_lane)
        elif rates[row]:
            _add_narrow_with_fee(matrix[at[row]], lots[row], rates[row], of_lane)
        else:
            _add_narrow(matrix[at[row]], lots[row], of_lane)


@compiled
def _add_narrow(sums: Ints, lots: int, of_lane: Any) -> None:
    top, bottom, quotient, _ = of_lane
    for scenario in range(len(sums)):
        sums[scenario] += narrow(lots, top[scenario], bottom[scenario], quotient[scenario])


@compiled
def _add_narrow_with_fee(sums: Ints, lots: int, rate: int, of_lane: Any) -> None:
    top, bottom, quotient, _ = of_lane
    share = rate / FEE_UNITS_PER_ONE
    for scenario in range(len(sums)):
        value = narrow(lots, top[scenario], bottom[scenario], quotient[scenario])
        sums[scenario] += value - narrow(abs(value), rate, FEE_UNITS_PER_ONE, share)


@compiled
def _add_wide(sums: Ints, lots: int, rate: int, of_lane: Any) -> None:
    top, bottom, quotient, reciprocal = of_lane
    share = rate / FEE_UNITS_PER_ONE
    for scenario in range(len(sums)):
        value = wide(lots, top[scenario], bottom[scenario], quotient[scenario], reciprocal[scenario])
        fee = wide(abs(value), rate, FEE_UNITS_PER_ONE, share, _FEE_RECIPROCAL)
        sums[scenario] += value - fee
