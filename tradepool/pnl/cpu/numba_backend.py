"""Marks on the CPU in compiled loops, on as many cores as are given; needs the extra `[fast]`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from tradepool.pnl.book.columns import Ints, Rows
from tradepool.pnl.cpu.followed import INT64_END, FollowedColumns
from tradepool.pnl.cpu.numba_kernel import add_rows, mark_stretch, revalue_rows
from tradepool.pnl.cpu.standing import Standing
from tradepool.pnl.sums import Limbs, Sums
from tradepool.pnl.tables import Tables

__all__ = ["NumbaBackend"]

_THREAD_ROWS_MIN = 1 << 17
"""Rows that are worth a thread of their own."""
_SPILL_ROWS = 4
"""Sums by code are spilled after so many rows for each code or later, else every row is split."""
_NO_ROWS = np.empty(0, np.int64)
_NO_LIMBS = np.empty((0, 4), np.int64)


class NumbaBackend(FollowedColumns):
    """The backend that reads the book's own columns in compiled loops: nothing is copied.

    The sorted part is marked by `threads` threads, each with groups of its own; the tail, whose groups may
    be any, after them.
    """

    name = "numba"

    def __init__(self, *, threads: int = 1, thread_rows_min: int = _THREAD_ROWS_MIN) -> None:
        super().__init__()
        self._threads = threads
        self._thread_rows_min = thread_rows_min
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pnl") if threads > 1 else None

    def _mark_all(self, tables: Tables, *, groups: int, rows: bool) -> Sums:
        size = self._runs.rows
        by_row = np.zeros(size, np.int64) if rows else _NO_ROWS
        high = _NO_LIMBS if self._fits(tables) else np.zeros((groups, 4), np.int64)
        by_group = np.zeros((groups, 4), np.int64), high
        sorted_size = min(self._columns.sorted_size, size)
        # Without rows there is nothing to add up but this.
        by_code = [_no_codes(tables)]
        stretches = list(pairwise(self._cuts(sorted_size)))

        def mark_one(stretch: tuple[int, int]) -> tuple[Ints, Ints]:
            return self._mark_stretch(tables, by_group, by_row, *stretch)

        if self._pool is None or len(stretches) < 2:  # noqa: PLR2004 - one stretch needs no other thread
            by_code += map(mark_one, stretches)
        else:
            by_code += self._pool.map(mark_one, stretches)
        if sorted_size < size:
            by_code.append(mark_one((sorted_size, size)))
        return _sums(tables, by_group, by_code, by_row if rows else None)

    def _add(self, rows: Rows, tables: Tables, sign: int, standing: Standing) -> None:
        by_code = standing.code_low, standing.code_high
        add_rows(rows, _arrays(tables), _flags(tables, 0), sign, standing.by_group, by_code)

    def _revalue(self, rows: Rows, old: Tables, new: Tables, standing: Standing) -> None:
        sums = standing.by_group, (standing.code_low, standing.code_high)
        revalue_rows(rows, _arrays(old), _flags(old, 0), _arrays(new), _flags(new, 0), *sums)

    def _cuts(self, size: int) -> list[int]:
        """Where each thread's stretch of the sorted part begins: at the first row of a group."""
        parts = max(1, min(self._threads, size // self._thread_rows_min))
        starts = self._runs.starts[: self._runs.starts.searchsorted(size)]
        wanted = np.arange(1, parts) * size // parts
        inner = starts[starts.searchsorted(wanted).clip(max=len(starts) - 1)] if len(starts) else wanted
        return sorted({0, *inner.tolist(), size})

    def _mark_stretch(
        self, tables: Tables, by_group: tuple[Ints, Ints], by_row: Ints, start: int, stop: int
    ) -> tuple[Ints, Ints]:
        """Mark a stretch into the sums by group; the limbs of its own sums by code."""
        columns, runs = self._columns, self._runs
        first_run = int(runs.starts.searchsorted(start, "right")) - 1
        low, high = _no_codes(tables)
        mark_stretch(
            start,
            stop,
            first_run,
            (columns.lots, columns.cost, columns.code.view(np.uint32), columns.fee_class),
            (runs.bounds, runs.groups),
            _arrays(tables),
            _flags(tables, len(by_group[1])),
            by_group,
            (np.zeros_like(low), low, high),
            by_row,
        )
        return low, high


def _no_codes(tables: Tables) -> tuple[Ints, Ints]:
    codes = len(tables.limit)
    return np.zeros((codes, 2), np.int64), np.zeros((codes, 2), np.int64)


def _arrays(tables: Tables) -> tuple[Any, ...]:
    return (
        tables.multiplier,
        tables.divisor,
        tables.quotient,
        tables.reciprocal,
        tables.limit,
        tables.fee_quotient,
    )


def _flags(tables: Tables, split_groups: int) -> tuple[bool, bool, bool, int, bool]:
    safe_rows = (INT64_END - 1) // max(1, tables.magnitude_max)
    if safe_rows < _SPILL_ROWS * len(tables.limit):
        safe_rows = 0
    return (
        tables.wide,
        tables.partial,
        len(tables.fee_rate) > 1,
        min(safe_rows, INT64_END - 1),
        split_groups > 0,
    )


def _sums(
    tables: Tables, by_group: tuple[Ints, Ints], by_code: list[tuple[Ints, Ints]], by_row: Ints | None
) -> Sums:
    low, high = by_group
    code_low, code_high = (np.sum(limbs, axis=0) for limbs in zip(*by_code, strict=True))
    signs = tables.value_signs
    return Sums(
        unrealised=_limbs(low, high, 0),
        profit=_limbs(low, high, 1),
        exposure=_limbs(low, high, 2),
        winners=low[:, 3],
        code_value=Limbs(signs * code_low[:, 1], signs * code_high[:, 1]),
        code_unrealised=Limbs(code_low[:, 0], code_high[:, 0]),
        rows=by_row,
    )


def _limbs(low: Ints, high: Ints, column: int) -> Limbs:
    return Limbs(low[:, column], high[:, column] if len(high) else None)
