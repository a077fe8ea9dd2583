"""A backend with another one behind it, so that a full or failing device costs speed and never a tick."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from tradepool.pnl.book.columns import Columns
from tradepool.pnl.protocol import Backend
from tradepool.pnl.sums import Sums
from tradepool.pnl.tables import Tables

__all__ = ["Fallback"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Fallback:
    """Works on `first` until it fails, then on what `second` makes.

    The call that failed is made again there, with what it was given. A first that was out of memory gets
    another chance when the columns are uploaded next; after any other failure it is left alone, because a
    CUDA context that failed once fails always. Each failure is one line in the log.
    """

    def __init__(self, first: Backend, second: Callable[[], Backend]) -> None:
        self._first: Backend | None = first
        self._make_second = second
        self._second: Backend | None = None
        self._active = first
        self._columns = Columns()
        # What the last mark was given, until the columns move on.
        self._asked: tuple[Tables, int, bool] | None = None

    @property
    def name(self) -> str:
        """That of the one at work."""
        return self._active.name

    @property
    def generation(self) -> object:
        """That of the one at work."""
        return self._active.generation

    def upload(self, columns: Columns) -> None:
        """Take all rows of `columns`, on the first if it works."""
        self._columns = columns
        self._asked = None
        self._active = self._first or self._active
        self._try(lambda backend: backend.upload(columns))

    def apply(self, columns: Columns) -> None:
        """Take what changed since the last call."""
        self._asked = None
        self._try(lambda backend: backend.apply(columns))

    def mark(self, tables: Tables, *, groups: int, rows: bool) -> None:
        """Mark every row and add up."""
        self._asked = (tables, groups, rows)
        self._try(lambda backend: backend.mark(tables, groups=groups, rows=rows))

    def download(self) -> Sums:
        """The result of the last `mark`, made again if the device failed over it."""
        return self._try(lambda backend: backend.download())

    def _try(self, work: Callable[[Backend], T]) -> T:
        if self._active is not self._first:
            return work(self._active)
        try:
            return work(self._active)
        except (MemoryError, RuntimeError) as problem:
            self._fall_back(problem)
        return work(self._active)

    def _fall_back(self, problem: Exception) -> None:
        """Bring the second one to where the first was."""
        second = self._second = self._second or self._make_second()
        is_full = isinstance(problem, MemoryError)
        again = "until the book is compacted" if is_full else "from now on"
        failed = self._active.name
        _log.warning(
            "pnl backend %s failed, marks are made by %s %s: %s", failed, second.name, again, problem
        )
        if not is_full:
            self._first = None
        self._active = second
        second.upload(self._columns)
        if self._asked is not None:
            tables, groups, rows = self._asked
            second.mark(tables, groups=groups, rows=rows)
