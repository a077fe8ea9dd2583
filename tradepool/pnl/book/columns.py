"""The rows of a book as growing numpy columns: a part sorted by group, then a tail in order of arrival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "COLUMN_TYPES",
    "COST_MAX",
    "DEAD_CODE",
    "Columns",
    "Floats",
    "Indices",
    "Ints",
    "Row",
    "Rows",
    "grown",
]

COST_MAX = 2**62 - 1
"""Largest |cost| of an int64 row: with |v| and |fee| ≤ 2⁶¹ the PnL still fits."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.signedinteger[Any]]

DEAD_CODE = 0
"""The code of a removed row. Its lots and cost are 0 too, so it adds nothing to any sum."""

COLUMN_TYPES: Mapping[str, type[np.generic]] = {
    "group": np.int32,
    "code": np.int32,
    "lots": np.int64,
    "cost": np.int64,
    "fee_class": np.uint16,
    "version": np.int64,
    "slot": np.int32,
}

_CAPACITY_MIN = 1024
_ROOM_SHARE = 8
_TOUCHED_MIN = 4096
_BLOCK_ROWS = 1 << 16

A = TypeVar("A", bound=np.generic)


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


class Rows(NamedTuple):
    """Many rows: the fields of `Row` as arrays, in the types of COLUMN_TYPES."""

    group: npt.NDArray[np.int32]
    code: npt.NDArray[np.int32]
    lots: Ints
    cost: Ints
    fee_class: npt.NDArray[np.uint16]

    def at(self, where: Indices | npt.NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows._make(cells[where] for cells in self)

    def stretch(self, start: int, stop: int) -> Rows:
        """The rows from `start` to before `stop`: views, no copies."""
        return Rows._make(cells[start:stop] for cells in self)

    def differ(self, others: Rows) -> npt.NDArray[np.bool_]:
        """Where two lists of rows are not the same."""
        differ: npt.NDArray[np.bool_] = np.any(
            [mine != its for mine, its in zip(self, others, strict=True)], axis=0
        )
        return differ

    def tolist(self) -> list[Row]:
        """One `Row` for each."""
        return list(map(Row._make, zip(*(cells.tolist() for cells in self), strict=True)))


class Columns:
    """Rows as arrays of length `size`; rows never move within one `generation`.

    What changes within a generation is the tail, which grows, and the rows listed in `touched`, so a
    backend that keeps a copy follows by reading both from where it stopped. `generation` is a new object
    whenever that is not enough and everything has to be read again.
    """

    def __init__(
        self, arrays: Mapping[str, npt.NDArray[Any]] | None = None, *, size: int = 0, sorted_size: int = 0
    ) -> None:
        """The first `size` rows of `arrays`, one for each of COLUMN_TYPES, which are kept and written to."""
        if arrays is None:
            arrays = {name: np.zeros(0, dtype) for name, dtype in COLUMN_TYPES.items()}
        self._arrays = {name: arrays[name] for name in COLUMN_TYPES}
        self.size = size
        self.sorted_size = sorted_size
        self.dead = int(np.count_nonzero(self.code == DEAD_CODE))
        self._renew()

    @property
    def lots(self) -> Ints:
        """Signed quantities, int64."""
        return self._arrays["lots"][: self.size]

    @property
    def cost(self) -> Ints:
        """Costs in 10⁻⁸, int64."""
        return self._arrays["cost"][: self.size]

    @property
    def code(self) -> npt.NDArray[np.int32]:
        """Lane and direction, or DEAD_CODE."""
        return self._arrays["code"][: self.size]

    @property
    def fee_class(self) -> npt.NDArray[np.uint16]:
        """Index into the fee rates; class 0 is no fee."""
        return self._arrays["fee_class"][: self.size]

    @property
    def group(self) -> npt.NDArray[np.int32]:
        """The (user, currency) of each row; a removed row keeps its own."""
        return self._arrays["group"][: self.size]

    @property
    def slot(self) -> npt.NDArray[np.int32]:
        """The slot of each row's trade, see TradeRows; a removed row's may be another's by now."""
        return self._arrays["slot"][: self.size]

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Every column by name, as COLUMN_TYPES has them."""
        return {name: array[: self.size] for name, array in self._arrays.items()}

    @property
    def stale(self) -> int:
        """Rows that a compaction would drop or sort."""
        return self.dead + self.size - self.sorted_size

    def rows(self, indices: Indices) -> Rows:
        """A copy of the rows at `indices`."""
        return Rows._make(self._arrays[name][indices] for name in Rows._fields)

    def versions(self, indices: Indices) -> Ints:
        """The versions the rows at `indices` were written with."""
        versions: Ints = self._arrays["version"][indices]
        return versions

    def version(self, index: int) -> int:
        """The version the row at `index` was written with."""
        return int(self._arrays["version"][index])

    def lots_max(self, lanes: int) -> Ints:
        """The largest |lots| in each of so many lanes."""
        largest = np.zeros(lanes, np.int64)
        for start in range(0, self.size, _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            np.maximum.at(largest, self.code[block] >> 1, np.abs(self.lots[block]))
        return largest

    def append(self, rows: Rows, versions: Ints, slots: npt.NDArray[np.int32]) -> None:
        """Add rows to the tail, from index `size` on."""
        start, stop = self.size, self.size + len(slots)
        if stop > len(self._arrays["code"]):
            self._arrays = {name: grown(array, start, stop) for name, array in self._arrays.items()}
        self.size = stop
        self._write(slice(start, stop), rows, versions)
        self._arrays["slot"][start:stop] = slots

    def overwrite(self, indices: Indices, rows: Rows, versions: Ints) -> None:
        """Give the rows at `indices` new figures; their group stays: the sorted part relies on it."""
        former = self.rows(indices)
        assert np.array_equal(rows.group, former.group)
        self._write(indices, rows, versions)
        self._touch(indices, former)

    def restamp(self, indices: Indices, versions: Ints) -> None:
        """Give the rows at `indices` new versions, with the same figures."""
        self._arrays["version"][indices] = versions

    def kill(self, indices: Indices) -> None:
        """Turn the rows at `indices` into tombstones."""
        former = self.rows(indices)
        assert (former.code != DEAD_CODE).all()
        for name in ("code", "lots", "cost", "fee_class", "version"):
            self._arrays[name][indices] = 0
        self.dead += len(indices)
        self._touch(indices, former)

    def compact(self, group_map: npt.NDArray[np.int32], lane_map: npt.NDArray[np.int32]) -> None:
        """Drop tombstones, sort everything by group and renumber groups and lanes: a new generation.

        The maps, old number → new number, keep the order of the groups that stay.
        """
        order = self._sorted()
        size = len(order)
        # The arrays stay: memory that the process has not used before takes longer than the rows.
        scratch = np.empty(size, np.int64)
        for array in self._arrays.values():
            cells = scratch.view(array.dtype)[:size]
            array.take(order, out=cells, mode="clip")
            array[:size] = cells
        self.size = self.sorted_size = size
        self.dead = 0
        self.code[:] = (lane_map[self.code >> 1] << 1) | (self.code & 1)
        self.group[:] = group_map[self.group]
        self._renew()

    def _sorted(self) -> npt.NDArray[np.intp]:
        """The live rows in order of their group: the tail, sorted, goes in between what is sorted."""
        live = np.flatnonzero(self.code != DEAD_CODE)
        first_of_tail = live.searchsorted(self.sorted_size)
        settled, tail = live[:first_of_tail], live[first_of_tail:]
        tail = tail[np.argsort(self.group[tail], kind="stable")]
        places = self.group[settled].searchsorted(self.group[tail], side="right")
        return np.insert(settled, places, tail)

    def _write(self, where: slice | Indices, rows: Rows, versions: Ints) -> None:
        for name, cells in zip(Rows._fields, rows, strict=True):
            self._arrays[name][where] = cells
        self._arrays["version"][where] = versions

    def _touch(self, indices: Indices, former: Rows) -> None:
        self.touched += indices.tolist()
        self.former += former.tolist()
        # A list longer than this costs a follower more than reading the columns again.
        if len(self.touched) > max(_TOUCHED_MIN, self.size // 10):
            self._renew()

    def _renew(self) -> None:
        self.generation = object()
        self.touched: list[int] = []
        self.former: list[Row] = []
        """What each of `touched` was before."""


def grown(array: npt.NDArray[A], size: int, wanted: int) -> npt.NDArray[A]:
    """A copy of the first `size` cells with room for `wanted` and more, whose content is anything."""
    copy = _with_room(wanted, array.dtype)
    copy[:size] = array[:size]
    return copy


def _with_room(size: int, dtype: np.dtype[A]) -> npt.NDArray[A]:
    # An eighth: the tail of a book is a tenth when it is sorted in, so a large one seldom grows between.
    return np.empty(size + size // _ROOM_SHARE + _CAPACITY_MIN, dtype)
