"""The rows of a book as growing numpy columns: a part sorted by group, then a tail in order of arrival."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["DEAD_CODE", "Columns", "Floats", "Ints", "Row"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEAD_CODE = 0
"""The code of a removed row. Its lots and cost are 0 too, so it adds nothing to any sum."""

_CAPACITY_MIN = 1024
_TOUCHED_MIN = 4096


class Row(NamedTuple):
    """One position in the book's numbers."""

    group: int
    """Which (user, currency)."""
    code: int
    """2 · lane + 1 for a short, 2 · lane else; see lanes.Lane."""
    lots: int
    """Signed quantity in the lane's exponent."""
    cost: int
    """In 10⁻⁸."""
    fee_class: int


class Columns:
    """Rows as arrays of length `size`; rows never move within one `generation`.

    What changes within a generation is the tail, which grows, and the rows listed in `touched`, so a
    backend that keeps a copy follows by reading both from where it stopped. `generation` is a new object
    whenever that is not enough and everything has to be read again.
    """

    def __init__(self) -> None:
        self.size = 0
        self.sorted_size = 0
        self.dead = 0
        self.generation = object()
        self.touched: list[int] = []
        self.former: list[Row] = []
        """What each of `touched` was before."""
        self._lots = np.zeros(_CAPACITY_MIN, np.int64)
        self._cost = np.zeros(_CAPACITY_MIN, np.int64)
        self._code = np.zeros(_CAPACITY_MIN, np.int32)
        self._fee_class = np.zeros(_CAPACITY_MIN, np.uint16)
        self._group = np.zeros(_CAPACITY_MIN, np.int32)
        self._version = np.zeros(_CAPACITY_MIN, np.int64)
        self._slot = np.zeros(_CAPACITY_MIN, np.int32)

    @property
    def lots(self) -> Ints:
        """Signed quantities, int64."""
        return self._lots[: self.size]

    @property
    def cost(self) -> Ints:
        """Costs in 10⁻⁸, int64."""
        return self._cost[: self.size]

    @property
    def code(self) -> npt.NDArray[np.int32]:
        """Lane and direction, or DEAD_CODE."""
        return self._code[: self.size]

    @property
    def fee_class(self) -> npt.NDArray[np.uint16]:
        """Index into the fee rates; class 0 is no fee."""
        return self._fee_class[: self.size]

    @property
    def group(self) -> npt.NDArray[np.int32]:
        """The (user, currency) of each row; a removed row keeps its own."""
        return self._group[: self.size]

    @property
    def slot(self) -> npt.NDArray[np.int32]:
        """The slot of each row's trade, see TradeRows; a removed row's may be another's by now."""
        return self._slot[: self.size]

    @property
    def stale(self) -> int:
        """Rows that a compaction would drop or sort."""
        return self.dead + self.size - self.sorted_size

    def row(self, index: int) -> Row:
        """The row at `index`."""
        return Row(
            int(self._group[index]),
            int(self._code[index]),
            int(self._lots[index]),
            int(self._cost[index]),
            int(self._fee_class[index]),
        )

    def version(self, index: int) -> int:
        """The version the row at `index` was written with."""
        return int(self._version[index])

    def append(self, row: Row, version: int, slot: int) -> None:
        """Add a row to the tail, at index `size`."""
        index = self.size
        if index == len(self._lots):
            self._grow()
        self.size = index + 1
        self._write(index, row, version)
        self._slot[index] = slot

    def overwrite(self, index: int, row: Row, version: int) -> None:
        """Give the row at `index` new figures; its group stays, because the sorted part relies on it."""
        assert row.group == self._group[index]
        former = self.row(index)
        self._write(index, row, version)
        self._touch(index, former)

    def restamp(self, index: int, version: int) -> None:
        """Give the row at `index` a new version, with the same figures."""
        self._version[index] = version

    def kill(self, index: int) -> None:
        """Turn the row at `index` into a tombstone."""
        former = self.row(index)
        assert former.code != DEAD_CODE
        self._write(index, Row(former.group, DEAD_CODE, 0, 0, 0), 0)
        self.dead += 1
        self._touch(index, former)

    def compact(self, group_map: npt.NDArray[np.int32], lane_map: npt.NDArray[np.int32]) -> None:
        """Drop tombstones, sort everything by group and renumber groups and lanes: a new generation."""
        live = np.flatnonzero(self.code != DEAD_CODE)
        order = live[np.argsort(group_map[self.group[live]], kind="stable")]
        code = self._code[order]
        self._lots, self._cost = self._lots[order], self._cost[order]
        self._code = (lane_map[code >> 1] << 1) | (code & 1)
        self._fee_class, self._version = self._fee_class[order], self._version[order]
        self._group, self._slot = group_map[self._group[order]], self._slot[order]
        self.size = self.sorted_size = len(order)
        self.dead = 0
        self._renew()

    def _write(self, index: int, row: Row, version: int) -> None:
        self._group[index], self._code[index], self._lots[index], self._cost[index] = row[:4]
        self._fee_class[index] = row.fee_class
        self._version[index] = version

    def _touch(self, index: int, former: Row) -> None:
        self.touched.append(index)
        self.former.append(former)
        # A list longer than this costs a follower more than reading the columns again.
        if len(self.touched) > max(_TOUCHED_MIN, self.size // 10):
            self._renew()

    def _renew(self) -> None:
        self.generation = object()
        self.touched = []
        self.former = []

    def _grow(self) -> None:
        for name in ("_lots", "_cost", "_code", "_fee_class", "_group", "_version", "_slot"):
            column = getattr(self, name)
            setattr(
                self, name, np.concatenate([column, np.zeros(max(_CAPACITY_MIN, len(column)), column.dtype)])
            )
