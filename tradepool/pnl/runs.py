"""Stretches of a book's rows that belong to one group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tradepool.pnl.columns import Columns

__all__ = ["Runs"]


class Runs:
    """The runs of the rows of one generation of columns; `rows` of them are followed so far.

    The sorted part of a book has one run per group, its tail as many as the order of arrival gave it.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.starts: npt.NDArray[np.intp] = np.empty(0, np.intp)
        """The first row of each run."""
        self.groups: npt.NDArray[np.intp] = np.empty(0, np.intp)
        """The group of each run."""

    def follow(self, columns: Columns) -> None:
        """Take the rows appended to `columns` since the last call."""
        tail = columns.group[self.rows :]
        if not len(tail):
            return
        starts = np.flatnonzero(np.diff(tail, prepend=-1))
        self.starts = np.concatenate([self.starts, starts + self.rows])
        self.groups = np.concatenate([self.groups, tail[starts].astype(np.intp)])
        self.rows = columns.size
