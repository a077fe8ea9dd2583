"""What the backends on the CPU share: they read the book's own columns, and know what a tick changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from tradepool.pnl.book.columns import COLUMN_TYPES, Columns, Indices, Rows
from tradepool.pnl.book.runs import Runs
from tradepool.pnl.cpu.code_index import CodeIndex
from tradepool.pnl.cpu.standing import Standing
from tradepool.pnl.sums import Sums
from tradepool.pnl.tables import Tables

__all__ = ["INT64_END", "FollowedColumns"]

INT64_END = 2**63

_ROW_TYPES = tuple(COLUMN_TYPES[name] for name in Rows._fields)
_NO_ROWS = Rows(*(np.empty(0, kind) for kind in _ROW_TYPES))
_NO_SUMS = Sums.zeros(groups=0, codes=0, rows=None)
_FEW_SHARE = 10
"""A tick that changes more than one row in so many marks all of them."""


class _Changes(NamedTuple):
    """What a tick has to redo."""

    revalued: Rows
    """Rows as they were, at another price."""
    former: Rows
    """What touched rows were before."""
    renewed: Rows
    """What they are, and rows that were appended."""


class FollowedColumns(ABC):
    """The half of a backend that reads the book's own columns: nothing is copied.

    Where a tick changes few rows, because few prices moved, the sums of the last one go on: what those rows
    added is taken out, what they come to now is added. All of it is integers, so the sums are the same as
    if every row had been marked.
    """

    def __init__(self) -> None:
        self._columns = Columns()
        self.generation: object = None
        self._runs = Runs()
        self._sums = _NO_SUMS
        self._tables: Tables | None = None
        """Those of the last mark; None before the first of a generation."""
        self._rows = self._touched = 0
        """How many rows it had, and how many of the touched it knew."""
        self._standing: Standing | None = None
        self._index: CodeIndex | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the last mark went on from the sums of the one before."""
        return self._standing is not None

    def upload(self, columns: Columns) -> None:
        """Follow `columns` from its first row."""
        self._columns = columns
        self.generation = columns.generation
        self._runs = Runs()
        self._tables = self._standing = self._index = None

    def apply(self, columns: Columns) -> None:
        """Nothing to do, as `mark` reads what was appended and touched."""
        assert columns is self._columns

    def mark(self, tables: Tables, *, groups: int, rows: bool) -> None:
        """Mark every row and add up; `groups` is how many there are, `rows` keeps each row's PnL."""
        self._runs.follow(self._columns)
        changes = None if rows else self._few_changes(tables)
        if changes is None:
            self._standing = None
            self._sums = self._mark_all(tables, groups=groups, rows=rows)
        else:
            self._sums = self._go_on(changes, tables, groups)
        self._tables, self._rows, self._touched = tables, self._columns.size, len(self._columns.touched)

    def download(self) -> Sums:
        """The sums of the last `mark`, which no later one changes."""
        return self._sums

    @abstractmethod
    def _mark_all(self, tables: Tables, *, groups: int, rows: bool) -> Sums:
        """The sums over all rows."""

    @abstractmethod
    def _add(self, rows: Rows, tables: Tables, sign: int, standing: Standing) -> None:
        """Mark `rows` and add them `sign` times."""

    def _revalue(self, rows: Rows, old: Tables, new: Tables, standing: Standing) -> None:
        """Take out what `rows` came to at `old`, and add what they come to at `new`."""
        self._add(rows, old, -1, standing)
        self._add(rows, new, 1, standing)

    def _fits(self, tables: Tables) -> bool:
        """Whether every sum by group stays within int64."""
        return tables.magnitude_max * self._runs.longest < INT64_END

    def _few_changes(self, tables: Tables) -> _Changes | None:
        """What is to be redone since the last mark; None if that is much, or not to be told."""
        last = self._tables
        if last is None or not (self._fits(tables) and self._fits(last)):
            return None
        few = self._columns.size // _FEW_SHARE
        renewed = len(self._columns.touched) - self._touched + self._columns.size - self._rows
        codes = _changed_codes(last, tables)
        if codes is None or renewed > few:
            return None
        if len(codes) and self._count(codes) + renewed > few:
            return None
        former, touched = self._renewed()
        revalued = _NO_ROWS
        if len(codes):
            revalued = self._fresh_index().find(codes, below=self._rows, renewed=touched)
        appended = np.arange(self._rows, self._columns.size)
        return _Changes(revalued, former, self._columns.rows(np.concatenate([touched, appended])))

    def _renewed(self) -> tuple[Rows, Indices]:
        """The rows that the last mark knew and that were touched since, as they were then."""
        news = self._columns.touched[self._touched :]
        if not news:
            return _NO_ROWS, np.empty(0, np.intp)
        touched, first = np.unique(np.array(news, np.intp), return_index=True)
        first, touched = first[touched < self._rows], touched[touched < self._rows]
        former = [self._columns.former[self._touched + at] for at in first.tolist()]
        cells = np.array(former, np.int64).reshape(-1, len(Rows._fields)).T
        return Rows(*(cell.astype(kind) for cell, kind in zip(cells, _ROW_TYPES, strict=True))), touched

    def _count(self, codes: Indices) -> int:
        """How many rows have one of `codes`, more or less."""
        if self._index is not None:
            return self._index.count(codes)
        # To make an index takes longer than to mark all rows, so that it is of use is known first.
        is_changed = np.zeros(int(self._columns.code.max(initial=0)) + 1, np.bool_)
        is_changed[codes[codes < len(is_changed)]] = True
        return int(np.count_nonzero(is_changed[self._columns.code]))

    def _fresh_index(self) -> CodeIndex:
        if self._index is None or self._index.is_worn:
            self._index = CodeIndex(self._columns, size=self._rows, touched=self._touched)
        return self._index

    def _go_on(self, changes: _Changes, tables: Tables, groups: int) -> Sums:
        last, self._tables = self._tables, None
        # Until all is added up there is nothing that another mark could go on from.
        assert last is not None
        if self._standing is None:
            self._standing = Standing(self._sums, last)
        # Else our own last sums would count as somebody who still reads them.
        self._sums = _NO_SUMS
        self._standing.make_room(groups=groups, codes=len(tables.limit))
        if len(changes.revalued.code):
            self._revalue(changes.revalued, last, tables, self._standing)
        if len(changes.former.code):
            self._add(changes.former, last, -1, self._standing)
        if len(changes.renewed.code):
            self._add(changes.renewed, tables, 1, self._standing)
        return self._standing.sums(tables)


def _changed_codes(old: Tables, new: Tables) -> Indices | None:
    """The codes whose rows come to something else; None if these are most of them, or fee rates changed."""
    common, fees = len(old.limit), len(old.fee_rate)
    if common > len(new.limit) or fees > len(new.fee_rate) or (old.fee_rate != new.fee_rate[:fees]).any():
        return None
    changed = np.flatnonzero(
        (old.multiplier != new.multiplier[:common])
        | (old.divisor != new.divisor[:common])
        | (old.limit != new.limit[:common])
    )
    return changed if 2 * len(changed) <= common else None
