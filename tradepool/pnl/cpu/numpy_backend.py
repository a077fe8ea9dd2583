"""Marks on the CPU in plain numpy: always there, exact, one core."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Ints, Rows
from tradepool.pnl.cpu.followed import INT64_END, FollowedColumns
from tradepool.pnl.cpu.numpy_kernel import BlockMarks, RowKernel
from tradepool.pnl.cpu.standing import Standing
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK, Limbs, Sums
from tradepool.pnl.tables import Tables

__all__ = ["BLOCK_ROWS", "NumpyBackend"]

BLOCK_ROWS = 16384
"""Rows marked at once: the scratch memory of a block stays near a core's L2 cache."""


class NumpyBackend(FollowedColumns):
    """The backend that reads the book's own columns: nothing is copied.

    Rows are added up by run, runs by group.
    """

    name = "numpy"

    def __init__(self, *, block_rows: int = BLOCK_ROWS) -> None:
        super().__init__()
        self._block_rows = block_rows
        self._kernel = RowKernel(block_rows)

    def _mark_all(self, tables: Tables, *, groups: int, rows: bool) -> Sums:
        size, block_max = self._runs.rows, tables.magnitude_max * self._block_rows
        sums = Sums.zeros(groups=groups, codes=len(tables.limit), rows=size if rows else None)
        by_run, by_code = _RunSums(self._runs.starts, block_max), _CodeSums(sums, block_max)
        for start in range(0, size, self._block_rows):
            stop = min(start + self._block_rows, size)
            marks = self._kernel.mark(self._columns, tables, start, stop)
            if sums.rows is not None:
                sums.rows[start:stop] = marks.unrealised
            by_code.add(marks)
            by_run.add(marks, start)
        by_code.spill()
        by_run.store(sums, self._runs.groups)
        return sums

    def _add(self, rows: Rows, tables: Tables, sign: int, standing: Standing) -> None:
        for start in range(0, len(rows.code), self._block_rows):
            stop = min(start + self._block_rows, len(rows.code))
            marks, group = self._kernel.mark(rows, tables, start, stop), rows.group[start:stop]
            unrealised = marks.unrealised
            by_code = np.stack([unrealised, marks.magnitude], axis=1)
            np.add.at(standing.code_low, marks.codes, sign * (by_code & LIMB_MASK))
            np.add.at(standing.code_high, marks.codes, sign * (by_code >> LIMB_BITS))
            by_group = [unrealised, np.maximum(unrealised, 0), marks.magnitude, unrealised > 0]
            np.add.at(standing.by_group, group, sign * np.stack(by_group, axis=1))


class _RunSums:
    """Sums of each run, over blocks whose own sums are below `block_max`."""

    def __init__(self, starts: npt.NDArray[np.intp], block_max: int) -> None:
        self._starts = starts
        # Where even the sum of one block may leave int64, every addend is split instead.
        self._reduce = _reduce_split if block_max >= INT64_END else _reduce
        self._unrealised, self._profit = Limbs.zeros(len(starts)), Limbs.zeros(len(starts))
        self._exposure = Limbs.zeros(len(starts))
        self._winners = np.zeros(len(starts), np.int64)

    def add(self, marks: BlockMarks, start: int) -> None:
        """Add the block that begins at row `start`. Overwrites the marks."""
        unrealised, won = marks.unrealised, marks.value
        first = int(self._starts.searchsorted(start, "right")) - 1
        last = int(self._starts.searchsorted(start + len(unrealised)))
        runs, starts = slice(first, last), self._starts[first:last] - start
        starts[0] = 0
        self._unrealised.add(runs, *self._reduce(unrealised, starts))
        self._exposure.add(runs, *self._reduce(marks.magnitude, starts))
        np.greater(unrealised, 0, out=won, casting="unsafe")
        self._winners[runs] += np.add.reduceat(won, starts)
        np.maximum(unrealised, 0, out=unrealised)
        self._profit.add(runs, *self._reduce(unrealised, starts))

    def store(self, sums: Sums, groups: npt.NDArray[np.intp]) -> None:
        """Add the sums of all runs to those of their `groups`."""
        self._unrealised.add_to(sums.unrealised, groups)
        self._profit.add_to(sums.profit, groups)
        self._exposure.add_to(sums.exposure, groups)
        np.add.at(sums.winners, groups, self._winners)


class _CodeSums:
    """Adds blocks by code into int64, and spills into limbs before that could overflow."""

    def __init__(self, sums: Sums, block_max: int) -> None:
        self._sums = sums
        self._blocks_max = (INT64_END - 1) // max(1, block_max)
        self._blocks = 0
        self._value = np.zeros_like(sums.code_value.low)
        self._unrealised = np.zeros_like(sums.code_value.low)

    def add(self, marks: BlockMarks) -> None:
        """Add one block."""
        if not self._blocks_max:
            self._sums.code_value.scatter(marks.codes, marks.value)
            self._sums.code_unrealised.scatter(marks.codes, marks.unrealised)
            return
        np.add.at(self._value, marks.codes, marks.value)
        np.add.at(self._unrealised, marks.codes, marks.unrealised)
        self._blocks += 1
        if self._blocks == self._blocks_max:
            self.spill()

    def spill(self) -> None:
        """Move what is in int64 into the limbs."""
        self._sums.code_value.absorb(self._value)
        self._sums.code_unrealised.absorb(self._unrealised)
        self._value[:] = 0
        self._unrealised[:] = 0
        self._blocks = 0


def _reduce(addends: Ints, starts: npt.NDArray[np.intp]) -> tuple[Ints, Ints]:
    """Low and high halves of the sum of each run."""
    sums = np.add.reduceat(addends, starts)
    return sums & LIMB_MASK, sums >> LIMB_BITS


def _reduce_split(addends: Ints, starts: npt.NDArray[np.intp]) -> tuple[Ints, Ints]:
    """Sums of the low and of the high halves of each run."""
    return np.add.reduceat(addends & LIMB_MASK, starts), np.add.reduceat(addends >> LIMB_BITS, starts)
