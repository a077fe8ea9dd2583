"""Net positions valued in every scenario, in numpy; the arithmetic is that of numpy_kernel.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE
from tradepool.pnl.cpu.numpy_kernel import Divider, RowRatios
from tradepool.pnl.stress.tables import ScenarioTables

__all__ = ["MatrixRows", "add_values"]

_CELLS = 16384
"""Values worked out at once: the scratch memory stays near a core's L2 cache."""


class MatrixRows(NamedTuple):
    """Net positions that a kernel may be trusted with, sorted by where they are added."""

    at: npt.NDArray[np.intp]
    """The row of the matrix that each is added to, ascending."""
    lane: npt.NDArray[np.int32]
    lots: Ints
    rate: Ints
    """The fee rate in 10⁻⁷."""
    is_wide: npt.NDArray[np.bool_]
    """Whether the narrow kernel is not enough."""

    def part(self, start: int, stop: int) -> MatrixRows:
        """Those from `start` to `stop`."""
        part = slice(start, stop)
        return MatrixRows(
            self.at[part], self.lane[part], self.lots[part], self.rate[part], self.is_wide[part]
        )


def add_values(matrix: Ints, rows: MatrixRows, tables: ScenarioTables) -> None:
    """Add the value less the exit fee of each of `rows` in every scenario to its row of `matrix`."""
    scenarios = matrix.shape[1]
    size = max(1, _CELLS // scenarios)
    divider = Divider(size * scenarios)
    for start in range(0, len(rows.lots), size):
        part = rows.part(start, start + size)
        values = _values(part, tables, divider).reshape(-1, scenarios)
        firsts = np.flatnonzero(np.diff(part.at, prepend=-1))
        matrix[part.at[firsts]] += np.add.reduceat(values, firsts, axis=0)


def _values(rows: MatrixRows, tables: ScenarioTables, divider: Divider) -> Ints:
    divide = divider.wide if rows.is_wide.any() else divider.narrow
    scenarios = tables.multiplier.shape[1]
    lots = rows.lots.repeat(scenarios)
    ratios = RowRatios(
        tables.multiplier[rows.lane].ravel(),
        tables.divisor[rows.lane].ravel(),
        tables.quotient[rows.lane].ravel(),
        tables.reciprocal[rows.lane].ravel(),
    )
    values, fees = np.empty_like(lots), np.empty_like(lots)
    divide(lots, ratios, values)
    if rows.rate.any():
        rate = rows.rate.repeat(scenarios)
        by_rate = RowRatios(rate, FEE_UNITS_PER_ONE, rate / FEE_UNITS_PER_ONE, 1 / FEE_UNITS_PER_ONE)
        divide(np.abs(values), by_rate, fees)
        values -= fees
    return values
