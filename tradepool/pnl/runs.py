"""Stretches of rows that belong to one group, and how a backend on the book's own columns follows them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tradepool.pnl.columns import Columns
from tradepool.pnl.sums import Sums

__all__ = ["FollowedColumns", "Runs"]


class Runs:
    """The runs of the rows of one generation of columns; `rows` of them are followed so far.

    The sorted part of a book has one run per group, its tail as many as the order of arrival gave it.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.bounds: npt.NDArray[np.intp] = np.zeros(1, np.intp)
        """The first row of each run, and `rows`."""
        self.groups: npt.NDArray[np.intp] = np.empty(0, np.intp)
        """The group of each run."""

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
        self.bounds = np.concatenate([self.starts, starts + self.rows, [columns.size]])
        self.groups = np.concatenate([self.groups, tail[starts].astype(np.intp)])
        self.rows = columns.size


class FollowedColumns:
    """The half of a backend that reads the book's own columns: nothing is copied, `upload` finds the runs."""

    def __init__(self) -> None:
        self._columns = Columns()
        self.generation: object = None
        self._runs = Runs()
        self._sums = Sums.zeros(groups=0, codes=0, rows=None)

    def upload(self, columns: Columns) -> None:
        """Follow `columns` from its first row."""
        self._columns = columns
        self.generation = columns.generation
        self._runs = Runs()
        self.apply(columns)

    def apply(self, columns: Columns) -> None:
        """Follow the rows appended since the last call; figures changed in place need nothing."""
        self._runs.follow(columns)

    def download(self) -> Sums:
        """The sums of the last `mark`."""
        return self._sums
