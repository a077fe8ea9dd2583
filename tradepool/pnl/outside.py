"""The rows of a book that no kernel counts at one set of tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book import Book
from tradepool.pnl.tables import Tables

__all__ = ["Outside", "rows_outside"]

Indices = npt.NDArray[np.intp]

_NONE: Indices = np.empty(0, np.intp)
_UNPRICED, _BEYOND = 1, 2


class Outside(NamedTuple):
    """Indices of rows, in ascending order."""

    unpriced: Indices
    """Those whose symbol has no price."""
    beyond: Indices
    """Those that have one, and are larger than any kernel marks exactly at it."""

    @property
    def rows(self) -> Indices:
        """All of them."""
        return np.concatenate(self) if len(self.unpriced) or len(self.beyond) else _NONE


def rows_outside(book: Book, tables: Tables) -> Outside:
    """The live rows that `tables` leave out.

    Which lanes can have some is found first: one byte is then looked up for each row, not its limit.
    """
    if not tables.partial:
        return Outside(_NONE, _NONE)
    columns = book.columns
    kinds = _kinds(book, tables)[columns.code]
    rows = np.flatnonzero(kinds)
    is_unpriced = kinds[rows] == _UNPRICED
    large = rows[~is_unpriced]
    beyond = large[np.abs(columns.lots[large]) > tables.limit[columns.code[large]]]
    return Outside(rows[is_unpriced], beyond)


def _kinds(book: Book, tables: Tables) -> npt.NDArray[np.uint8]:
    """By code: whether its rows have no price, whether some of them may be beyond the limit."""
    limit = tables.limit[::2]
    kinds = np.zeros(len(limit), np.uint8)
    kinds[limit < np.asarray(book.lanes.lots_max, np.int64)] = _BEYOND
    kinds[limit < 0] = _UNPRICED
    kinds[np.asarray(book.lanes.counts) == 0] = 0
    return kinds.repeat(2)
