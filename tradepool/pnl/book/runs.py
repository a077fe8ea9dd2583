"""Stretches of rows that belong to one group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Columns, Ints

__all__ = ["Runs"]


class Runs:
    """The runs of the rows of one generation of columns; `rows` of them are followed so far.

    The sorted part of a book has one run per group, its tail as many as the order of arrival gave it.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.longest = 0
        """How many rows the largest group has."""
        self.bounds: npt.NDArray[np.intp] = np.zeros(1, np.intp)
        """The first row of each run, and `rows`."""
        self.groups: npt.NDArray[np.intp] = np.empty(0, np.intp)
        """The group of each run."""
        self._counts: Ints = np.zeros(0, np.int64)

    @property
    def starts(self) -> npt.NDArray[np.intp]:
        """The first row of each run."""
        return self.bounds[:-1]

    def follow(self, columns: Columns) -> None:
        """Take the rows appended to `columns` since the last call."""
        tail = columns.group[self.rows :]
        if not len(tail):
            return
        starts = np.flatnonzero(np.diff(tail, prepend=-1))
        bounds = np.append(starts, len(tail)) + self.rows
        self.groups = np.concatenate([self.groups, tail[starts].astype(np.intp)])
        self.bounds = np.concatenate([self.starts, bounds])
        self._count(tail[starts], np.diff(bounds))
        self.rows = columns.size

    def _count(self, groups: npt.NDArray[np.int32], lengths: Ints) -> None:
        missing = int(groups.max()) + 1 - len(self._counts)
        if missing > 0:
            self._counts = np.concatenate([self._counts, np.zeros(missing, np.int64)])
        np.add.at(self._counts, groups, lengths)
        self.longest = max(self.longest, int(self._counts[groups].max()))
