"""The sums in compiled loops: one pass over the rows, nothing in memory but the results.

Rows go through in blocks, which numba_rows.py marks. Compiled at the first call and kept on disk
(numba_cache.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.cpu.numba_cache import compiled
from tradepool.pnl.cpu.numba_rows import BLOCK_ROWS, mark_block, scratch
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK

__all__ = ["add_rows", "mark_stretch", "revalue_rows"]


@compiled
def mark_stretch(
    start: int,
    stop: int,
    first_run: int,
    book: Any,
    runs: Any,
    tables: Any,
    flags: Any,
    by_group: Any,
    by_code: Any,
    rows: Ints,
) -> None:
    """Mark the rows `start` to `stop`, of which the first is in run `first_run`, and add them up.

    Args:
        start: first row.
        stop: the row after the last.
        first_run: the run that `start` belongs to.
        book: lots, cost, code and fee class of every row; the last two unsigned, for a signed index has to
            be looked at before it is used.
        runs: first row and group of each run; one more first row, the end, closes the last one.
        tables: multiplier, divisor, quotient, reciprocal and limit by code; quotient by fee class.
        flags: whether rows need the wide kernel, may be beyond their limit, and have fees; how many rows
            add up within int64, for sums by code; whether sums by group may leave it.
        by_group: unrealised, profit, exposure and winners, a line for each group; their high limbs, of
            which there are none where the sums fit int64.
        by_code: unrealised and |value|, a line for each code, in int64 as far as rows add up within it;
            the low and the high limbs; of this stretch alone.
        rows: gets the unrealised PnL by row; of length 0 where nobody asked.
    """
    lots, cost, code, fee_class = book
    safe_rows, is_split = flags[3], flags[4]
    near, low, high = by_code
    unrealised, size = np.empty(BLOCK_ROWS, np.int64), np.empty(BLOCK_ROWS, np.int64)
    buffers, so_far = scratch(), np.empty((BLOCK_ROWS, 4), np.int64)
    run, unspilled = first_run, 0
    while start < stop:
        end = min(start + BLOCK_ROWS, stop)
        gains, sizes, codes = unrealised[: end - start], size[: end - start], code[start:end]
        figures = (lots[start:end], cost[start:end], codes, fee_class[start:end])
        mark_block(gains, sizes, figures, tables, flags, buffers)
        if len(rows):
            rows[start:end] = gains
        if safe_rows < BLOCK_ROWS:
            _add_codes_split(low, high, gains, sizes, codes, 1)
        else:
            if unspilled + BLOCK_ROWS > safe_rows:
                _spill(near, low, high)
                unspilled = 0
            _add_codes(near, gains, sizes, codes)
            unspilled += BLOCK_ROWS
        if is_split:
            run = _add_runs_split(by_group, gains, sizes, start, end, run, runs)
        else:
            _add_so_far(so_far, gains, sizes)
            run = _add_runs(by_group[0], so_far, start, end, run, runs)
        start = end
    _spill(near, low, high)


@compiled
def add_rows(book: Any, tables: Any, flags: Any, sign: int, by_group: Ints, by_code: Any) -> None:
    """Mark the rows of `book` and add them to sums, or take them out of them where `sign` is −1.

    `book` is group, code, lots, cost and fee class, without negative codes; `tables` and `flags` are those of
    `mark_stretch`. `by_group` may wrap in between; `by_code` has the low and the high limbs.
    """
    group, code, lots, cost, fee_class = book
    unrealised, sizes = np.empty(BLOCK_ROWS, np.int64), np.empty(BLOCK_ROWS, np.int64)
    buffers = scratch()
    for start in range(0, len(code), BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, len(code))
        gains, codes = unrealised[: end - start], code[start:end]
        figures = (lots[start:end], cost[start:end], codes, fee_class[start:end])
        mark_block(gains, sizes, figures, tables, flags, buffers)
        _add_codes_split(by_code[0], by_code[1], gains, sizes, codes, sign)
        for row in range(len(gains)):
            gain, of_group = gains[row], group[start + row]
            won = sign if gain > 0 else 0
            by_group[of_group, 0] += sign * gain
            by_group[of_group, 1] += won * gain
            by_group[of_group, 2] += sign * sizes[row]
            by_group[of_group, 3] += won


@compiled
def revalue_rows(
    book: Any, old_tables: Any, old_flags: Any, tables: Any, flags: Any, by_group: Ints, by_code: Any
) -> None:
    """Take the rows of `book` out of sums at `old_tables` and add them at `tables`; see `add_rows`."""
    group, code, lots, cost, fee_class = book
    old_gains, old_sizes = np.empty(BLOCK_ROWS, np.int64), np.empty(BLOCK_ROWS, np.int64)
    gains, sizes = np.empty(BLOCK_ROWS, np.int64), np.empty(BLOCK_ROWS, np.int64)
    buffers = scratch()
    for start in range(0, len(code), BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, len(code))
        size, codes = end - start, code[start:end]
        figures = (lots[start:end], cost[start:end], codes, fee_class[start:end])
        mark_block(old_gains[:size], old_sizes, figures, old_tables, old_flags, buffers)
        mark_block(gains[:size], sizes, figures, tables, flags, buffers)
        _add_code_changes(by_code[0], by_code[1], old_gains, old_sizes, gains, sizes, codes)
        for row in range(size):
            of_group, old, new = group[start + row], old_gains[row], gains[row]
            by_group[of_group, 0] += new - old
            by_group[of_group, 1] += max(new, 0) - max(old, 0)
            by_group[of_group, 2] += sizes[row] - old_sizes[row]
            by_group[of_group, 3] += int(new > 0) - int(old > 0)


@compiled
def _add_code_changes(
    low: Ints, high: Ints, old_gains: Ints, old_sizes: Ints, gains: Ints, sizes: Ints, codes: Any
) -> None:
    for row in range(len(codes)):
        at, old, new, was, size = codes[row], old_gains[row], gains[row], old_sizes[row], sizes[row]
        low[at, 0] += (new & LIMB_MASK) - (old & LIMB_MASK)
        high[at, 0] += (new >> LIMB_BITS) - (old >> LIMB_BITS)
        low[at, 1] += (size & LIMB_MASK) - (was & LIMB_MASK)
        high[at, 1] += (size >> LIMB_BITS) - (was >> LIMB_BITS)


@compiled
def _add_codes(near: Ints, gains: Ints, sizes: Ints, codes: Any) -> None:
    for row in range(len(codes)):
        at = codes[row]
        near[at, 0] += gains[row]
        near[at, 1] += sizes[row]


@compiled
def _add_codes_split(low: Ints, high: Ints, gains: Ints, sizes: Ints, codes: Any, sign: int) -> None:
    for row in range(len(codes)):
        at = codes[row]
        low[at, 0] += sign * (gains[row] & LIMB_MASK)
        high[at, 0] += sign * (gains[row] >> LIMB_BITS)
        low[at, 1] += sign * (sizes[row] & LIMB_MASK)
        high[at, 1] += sign * (sizes[row] >> LIMB_BITS)


@compiled
def _spill(near: Ints, low: Ints, high: Ints) -> None:
    """Move what is in int64 into the limbs."""
    for at in range(len(near)):
        for column in range(2):
            low[at, column] += near[at, column] & LIMB_MASK
            high[at, column] += near[at, column] >> LIMB_BITS
            near[at, column] = 0


@compiled
def _add_so_far(so_far: Ints, gains: Ints, sizes: Ints) -> None:
    """The sums of a block up to each of its rows: what a run adds is the difference of two of them.

    A loop over the rows of a run, ten or so, would guess its end wrong once in each.
    """
    total = profit = exposure = winners = 0
    for row in range(len(gains)):
        gain = gains[row]
        total += gain
        profit += max(gain, 0)
        exposure += sizes[row]
        winners += int(gain > 0)
        so_far[row, 0] = total
        so_far[row, 1] = profit
        so_far[row, 2] = exposure
        so_far[row, 3] = winners


@compiled
def _add_runs(by_group: Ints, so_far: Ints, start: int, end: int, run: int, runs: Any) -> int:
    """Add the rows `start` to `end` to the groups of their runs; the run of the row at `end`.

    Sums up to a row may wrap at 2⁶³; a run's own, as a difference, is exact all the same.
    """
    bounds, groups = runs
    total = profit = exposure = winners = 0
    row = start
    while row < end:
        row = min(bounds[run + 1], end)
        last, group = row - start - 1, groups[run]
        by_group[group, 0] += so_far[last, 0] - total
        by_group[group, 1] += so_far[last, 1] - profit
        by_group[group, 2] += so_far[last, 2] - exposure
        by_group[group, 3] += so_far[last, 3] - winners
        total, profit, exposure, winners = so_far[last, 0], so_far[last, 1], so_far[last, 2], so_far[last, 3]
        run += int(row == bounds[run + 1])
    return run


@compiled
def _add_runs_split(
    by_group: Any, gains: Ints, sizes: Ints, start: int, end: int, run: int, runs: Any
) -> int:
    """The same row by row into low and high limbs, for sums that may leave int64."""
    (low, high), (bounds, groups) = by_group, runs
    for row in range(start, end):
        gain, size, group = gains[row - start], sizes[row - start], groups[run]
        profit = max(gain, 0)
        low[group, 0] += gain & LIMB_MASK
        high[group, 0] += gain >> LIMB_BITS
        low[group, 1] += profit & LIMB_MASK
        high[group, 1] += profit >> LIMB_BITS
        low[group, 2] += size & LIMB_MASK
        high[group, 2] += size >> LIMB_BITS
        low[group, 3] += int(gain > 0)
        run += int(row + 1 == bounds[run + 1])
    return run
