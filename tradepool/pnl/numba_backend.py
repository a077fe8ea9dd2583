"""Marks on the CPU in compiled loops, on as many cores as are given; needs the extra `[fast]`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from tradepool.pnl.columns import Ints
from tradepool.pnl.numba_kernel import mark_stretch
from tradepool.pnl.runs import FollowedColumns
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK, Sums
from tradepool.pnl.tables import Tables

__all__ = ["NumbaBackend"]

_INT64_END = 2**63
_THREAD_ROWS_MIN = 1 << 17
"""Rows that are worth a thread of their own."""
_NO_ROWS = np.empty(0, np.int64)


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

    def mark(self, tables: Tables, *, groups: int, rows: bool) -> None:
        """Mark every row once and add up; `groups` is how many there are, `rows` keeps each row's PnL."""
        size = self._runs.rows
        sums = self._sums = Sums.zeros(groups=groups, codes=len(tables.limit), rows=size if rows else None)
        sorted_size = min(self._columns.sorted_size, size)
        cuts = self._cuts(sorted_size)
        stretches = list(pairwise(cuts))
        if self._pool is None or len(stretches) < 2:  # noqa: PLR2004 - one stretch needs no other thread
            by_code = [self._mark_stretch(tables, sums, *stretch) for stretch in stretches]
        else:
            waiting = [self._pool.submit(self._mark_stretch, tables, sums, *stretch) for stretch in stretches]
            by_code = [each.result() for each in waiting]
        if sorted_size < size:
            by_code.append(self._mark_stretch(tables, sums, sorted_size, size))
        for stretch_sums in by_code:
            _add_codes(sums, stretch_sums)

    def _cuts(self, size: int) -> list[int]:
        """Where each thread's stretch of the sorted part begins: at the first row of a group."""
        parts = max(1, min(self._threads, size // self._thread_rows_min))
        starts = self._runs.starts[: self._runs.starts.searchsorted(size)]
        wanted = np.arange(1, parts) * size // parts
        inner = starts[starts.searchsorted(wanted).clip(max=len(starts) - 1)] if len(starts) else wanted
        return sorted({0, *inner.tolist(), size})

    def _mark_stretch(self, tables: Tables, sums: Sums, start: int, stop: int) -> tuple[Ints, ...]:
        """Mark a stretch into the sums by group; its own sums by code."""
        columns, runs = self._columns, self._runs
        first_run = int(runs.starts.searchsorted(start, "right")) - 1
        by_code = tuple(np.zeros(len(tables.limit), np.int64) for _ in range(4))
        is_split = tables.magnitude_max * (stop - start) >= _INT64_END
        mark_stretch(
            start,
            stop,
            first_run,
            (columns.lots, columns.cost, columns.code.view(np.uint32), columns.fee_class),
            (runs.bounds, runs.groups),
            _arrays(tables),
            (tables.wide, tables.partial, len(tables.fee_rate) > 1, is_split),
            _by_group(sums),
            by_code,
            _NO_ROWS if sums.rows is None else sums.rows,
        )
        return by_code


def _arrays(tables: Tables) -> tuple[Any, ...]:
    return (
        tables.multiplier,
        tables.divisor,
        tables.quotient,
        tables.reciprocal,
        tables.limit,
        tables.fee_rate,
        tables.fee_quotient,
    )


def _by_group(sums: Sums) -> tuple[Ints, ...]:
    limbs = (sums.unrealised, sums.profit, sums.exposure)
    return (*(half for each in limbs for half in (each.low, each.high)), sums.winners)


def _add_codes(sums: Sums, by_code: tuple[Ints, ...]) -> None:
    value_low, value_high, unrealised_low, unrealised_high = by_code
    for limbs, low, high in (
        (sums.code_value, value_low, value_high),
        (sums.code_unrealised, unrealised_low, unrealised_high),
    ):
        limbs.low += low & LIMB_MASK
        limbs.high += (low >> LIMB_BITS) + high
