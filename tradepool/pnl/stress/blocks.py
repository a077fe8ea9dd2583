"""The matrix of a stress test, groups by scenarios: only a few blocks of it exist at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.stress.exact_rows import Cost, ExactResults, ExactRows, Key
from tradepool.pnl.stress.kernels import Kernel
from tradepool.pnl.stress.netting import Net
from tradepool.pnl.stress.numpy_matrix import MatrixRows
from tradepool.pnl.stress.risk import Tail, TailColumns, tails_of
from tradepool.pnl.stress.tables import ScenarioTables
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK, Limbs

__all__ = ["BlockRisks", "Matrix", "Total"]

_CELLS = 1 << 18
"""Values of a block: 2 MiB, and as much again for their changes and for their order."""
_INT64_END = 2**63


class Total(NamedTuple):
    """Groups of one currency added up."""

    low: Ints
    high: Ints
    """Their values less fees, 10⁻⁸, at the base prices and in every scenario: high · 2³² + low."""
    cost: int
    trades: int

    def plus(self, other: Total) -> Total:
        """Both together."""
        return Total(
            self.low + other.low, self.high + other.high, self.cost + other.cost, self.trades + other.trades
        )

    def values(self) -> list[int]:
        """The values as single numbers."""
        return Limbs(self.low, self.high).tolist()


class BlockRisks(NamedTuple):
    """What one block of groups comes to, 10⁻⁸."""

    tails: TailColumns
    base: Ints
    """The value less fees of each group at the base prices."""
    totals: dict[str, Total]
    """By currency, without exact rows."""
    exact: ExactResults
    changes: dict[Key, Ints]
    """By scenario, of the groups it was asked for that have no exact rows."""


class Matrix:
    """The net positions that a kernel is trusted with, group by group."""

    def __init__(self, net: Net, tables: ScenarioTables, fitting: npt.NDArray[np.intp]) -> None:
        self._tables = tables
        group, lane, lots = net.group[fitting], net.lane[fitting], net.lots[fitting]
        is_first = np.diff(group, prepend=-1) != 0
        self._starts = np.flatnonzero(is_first)
        self._ends = np.append(self._starts, len(group))
        self._rows = MatrixRows(
            at=np.cumsum(is_first) - 1,
            lane=lane,
            lots=lots,
            rate=np.array(net.fee_rates, np.int64)[net.fee_class[fitting]],
            is_wide=np.abs(lots) > tables.narrow_max[lane],
        )
        self.keys: list[Key] = [net.groups[number] for number in group[self._starts].tolist()]
        self.cost_low = self._by_group(net.cost_low[fitting])
        self.cost_high = self._by_group(net.cost_high[fitting])
        self.trades = self._by_group(net.count[fitting].astype(np.int64))

    def blocks(self) -> list[range]:
        """All groups, cut so that the matrix of a block has a bounded size."""
        size = max(1, _CELLS // self._tables.multiplier.shape[1])
        return [range(start, min(start + size, len(self.keys))) for start in range(0, len(self.keys), size)]

    def values(self, block: range, kernel: Kernel) -> Ints:
        """The value less fees of the groups of a block, 10⁻⁸, at the base prices and in every scenario."""
        rows = self._rows.part(int(self._ends[block.start]), int(self._ends[block.stop]))
        values = np.zeros((len(block), self._tables.multiplier.shape[1]), np.int64)
        kernel.add_values(values, rows._replace(at=rows.at - block.start), self._tables)
        return values

    def risks(
        self, block: range, tail: Tail, kernel: Kernel, exact: ExactRows, kept: Collection[str]
    ) -> BlockRisks:
        """What a block comes to; the changes of the users in `kept` are kept."""
        values = self.values(block, kernel)
        changes = values[:, 1:] - values[:, :1]
        kept_changes, exact_results = {}, ExactResults()
        for place, number in enumerate(block):
            key = self.keys[number]
            is_kept = key[0] in kept
            if key in exact:
                own = values[place].tolist()
                exact_results.add(key, exact, own, self._cost(number), tail, keep=is_kept)
            elif is_kept:
                kept_changes[key] = changes[place].copy()
        totals = self._totals(values, block)
        return BlockRisks(tails_of(changes, tail), values[:, 0].copy(), totals, exact_results, kept_changes)

    def _by_group(self, addends: Ints) -> Ints:
        return np.add.reduceat(addends, self._starts) if len(addends) else addends

    def _cost(self, number: int) -> Cost:
        units = (int(self.cost_high[number]) << LIMB_BITS) + int(self.cost_low[number])
        return Cost(units, int(self.trades[number]))

    def _totals(self, values: Ints, block: range) -> dict[str, Total]:
        numbers: dict[str, list[int]] = defaultdict(list)
        for number in block:
            numbers[self.keys[number][1]].append(number)
        return {currency: self._total(values, block, of) for currency, of in numbers.items()}

    def _total(self, values: Ints, block: range, numbers: list[int]) -> Total:
        mine = values if len(numbers) == len(values) else values[np.array(numbers) - block.start]
        low, high = _column_sums(mine)
        cost = (int(self.cost_high[numbers].sum()) << LIMB_BITS) + int(self.cost_low[numbers].sum())
        return Total(low, high, cost, int(self.trades[numbers].sum()))


def _column_sums(values: Ints) -> tuple[Ints, Ints]:
    """Low and high halves of the sum of each column."""
    peak = max(-int(values.min()), int(values.max()))
    if peak * len(values) < _INT64_END:
        sums = values.sum(axis=0)
        return sums & LIMB_MASK, sums >> LIMB_BITS
    return (values & LIMB_MASK).sum(axis=0), (values >> LIMB_BITS).sum(axis=0)
