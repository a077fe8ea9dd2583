"""The row function and the sums in compiled loops: one pass over the rows, nothing in memory but the results.

The arithmetic is that of numpy_kernel.py, with the same limits (tables.py); `mark_stretch` walks a stretch
of rows in blocks that stay in a core's first cache, first the divisions, which vectorise, then the sums.
Compiled at the first call and kept on disk, beside this file or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from tradepool.pnl.columns import Floats, Ints
from tradepool.pnl.lanes import FEE_UNITS_PER_ONE
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK

__all__ = ["mark_stretch"]

_BLOCK_ROWS = 2048
_FEE_RECIPROCAL = 1 / FEE_UNITS_PER_ONE
# 1.5 · 2⁵²: adding it to |x| < 2⁵¹ rounds x half to even, taking it away again leaves the integer.
_ROUNDER = 6755399441055744.0
_SIGN_SHIFT = 63

Function = TypeVar("Function", bound=Callable[..., Any])
Scalar = Any
"""An int64 or float64 of compiled code, or the Python number it stands for."""


def _compiled(function: Function) -> Function:
    """Compiled by numba, for threads that run beside each other; wraps at 2⁶³ as the residue needs it."""
    return cast("Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_compiled
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
        tables: multiplier, divisor, quotient, reciprocal and limit by code; rate and quotient by fee class.
        flags: whether rows need the wide kernel, may be beyond their limit, have fees, and may add up
            beyond int64.
        by_group: low and high limbs of unrealised, profit and exposure by group, and winners.
        by_code: low and high limbs of value and unrealised by code; of this stretch alone.
        rows: gets the unrealised PnL by row; of length 0 where nobody asked.
    """
    lots, cost, code, fee_class = book
    is_wide, is_partial, has_fees, is_split = flags
    value, unrealised = np.empty(_BLOCK_ROWS, np.int64), np.empty(_BLOCK_ROWS, np.int64)
    top, bottom = np.empty(_BLOCK_ROWS, np.int64), np.empty(_BLOCK_ROWS, np.int64)
    quotient, reciprocal = np.empty(_BLOCK_ROWS), np.empty(_BLOCK_ROWS)
    run = first_run
    while start < stop:
        end = min(start + _BLOCK_ROWS, stop)
        size = end - start
        codes = code[start:end]
        _look_up(codes, tables, top, bottom, quotient, reciprocal, is_wide)
        _divide(value[:size], lots[start:end], top, bottom, quotient, reciprocal, is_wide)
        if has_fees:
            magnitude = np.abs(value[:size])
            _look_up_fees(fee_class[start:end], tables, top, bottom, quotient, reciprocal)
            _divide(unrealised[:size], magnitude, top, bottom, quotient, reciprocal, is_wide)
        else:
            unrealised[:size] = 0
        _subtract(unrealised, value, cost[start:end])
        if is_partial:
            _drop_beyond(value, unrealised, lots[start:end], codes, tables[4])
        if len(rows):
            rows[start:end] = unrealised[:size]
        _add_codes(by_code, value, unrealised, codes, is_split)
        run = _add_runs(by_group, value, unrealised, start, end, run, runs, is_split)
        start = end


@_compiled
def _look_up(
    codes: Any, tables: Any, top: Ints, bottom: Ints, quotient: Floats, reciprocal: Floats, is_wide: bool
) -> None:
    """M, D, M/D and 1/D of every row, apart from the arithmetic: only without gathers does that vectorise."""
    multipliers, divisors, quotients, reciprocals = tables[0], tables[1], tables[2], tables[3]
    for row in range(len(codes)):
        at = codes[row]
        top[row] = multipliers[at]
        bottom[row] = divisors[at]
        quotient[row] = quotients[at]
    if is_wide:
        for row in range(len(codes)):
            reciprocal[row] = reciprocals[codes[row]]


@_compiled
def _look_up_fees(
    fee_class: Any, tables: Any, top: Ints, bottom: Ints, quotient: Floats, reciprocal: Floats
) -> None:
    rates, quotients = tables[5], tables[6]
    for row in range(len(fee_class)):
        at = fee_class[row]
        top[row] = rates[at]
        quotient[row] = quotients[at]
    bottom[:] = FEE_UNITS_PER_ONE
    reciprocal[:] = _FEE_RECIPROCAL


@_compiled
def _divide(
    out: Ints, lots: Ints, top: Ints, bottom: Ints, quotient: Floats, reciprocal: Floats, is_wide: bool
) -> None:
    """Into `out` lots · M / D half to even: narrow where |result| < 2⁵⁰, else wide, where |result| < 2⁶¹."""
    if is_wide:
        for row in range(len(out)):
            result = np.int64(np.rint(lots[row] * quotient[row]))
            residue = lots[row] * top[row] - result * bottom[row]
            correction = np.int64(np.rint(residue * reciprocal[row]))
            out[row] = _settled(result + correction, residue - correction * bottom[row], bottom[row])
    else:
        for row in range(len(out)):
            result = np.int64((lots[row] * quotient[row] + _ROUNDER) - _ROUNDER)
            out[row] = _settled(result, lots[row] * top[row] - result * bottom[row], bottom[row])


@_compiled
def _settled(result: Scalar, residue: Scalar, divisor: Scalar) -> Scalar:
    """`result` moved by one where twice the residue is beyond ±D, or at it while `result` is odd."""
    twice = residue + residue
    reach = divisor - (result & 1)
    return result + np.int64(twice > reach) - np.int64(twice < -reach)


@_compiled
def _subtract(fee: Ints, value: Ints, cost: Ints) -> None:
    """Turn each row's fee into its unrealised PnL."""
    for row in range(len(cost)):
        fee[row] = value[row] - fee[row] - cost[row]


@_compiled
def _drop_beyond(value: Ints, unrealised: Ints, lots: Ints, codes: Any, limit: Ints) -> None:
    for row in range(len(lots)):
        if abs(lots[row]) > limit[codes[row]]:
            value[row] = 0
            unrealised[row] = 0


@_compiled
def _add_codes(by_code: Any, value: Ints, unrealised: Ints, codes: Any, is_split: bool) -> None:
    value_low, value_high, unrealised_low, unrealised_high = by_code
    if is_split:
        for row in range(len(codes)):
            at = codes[row]
            value_low[at] += value[row] & LIMB_MASK
            value_high[at] += value[row] >> LIMB_BITS
            unrealised_low[at] += unrealised[row] & LIMB_MASK
            unrealised_high[at] += unrealised[row] >> LIMB_BITS
    else:
        for row in range(len(codes)):
            at = codes[row]
            value_low[at] += value[row]
            unrealised_low[at] += unrealised[row]


@_compiled
def _add_runs(
    by_group: Any, value: Ints, unrealised: Ints, start: int, end: int, run: int, runs: Any, is_split: bool
) -> int:
    """Add the rows `start` to `end` to the groups of their runs; the run of the row at `end`."""
    starts, groups = runs
    total_low, total_high, profit_low, profit_high, exposure_low, exposure_high, winners = by_group
    row = start
    while row < end:
        upto = min(starts[run + 1], end)
        gains, sizes = unrealised[row - start : upto - start], value[row - start : upto - start]
        total = profit = exposure = won = 0
        for at in range(len(gains)):
            total += gains[at]
            profit += max(gains[at], 0)
            exposure += abs(sizes[at])
            won += int(gains[at] > 0)
        group = groups[run]
        if is_split:
            total, profit, exposure = _add_high(by_group, group, gains, sizes)
        total_low[group] += total & LIMB_MASK
        total_high[group] += total >> LIMB_BITS
        profit_low[group] += profit & LIMB_MASK
        profit_high[group] += profit >> LIMB_BITS
        exposure_low[group] += exposure & LIMB_MASK
        exposure_high[group] += exposure >> LIMB_BITS
        winners[group] += won
        row = upto
        if row == starts[run + 1]:
            run += 1
    return run


@_compiled
def _add_high(by_group: Any, group: int, gains: Ints, sizes: Ints) -> tuple[int, int, int]:
    """Add the high halves of rows whose sum may leave int64; the sums of their low halves."""
    _, total_high, _, profit_high, _, exposure_high, _ = by_group
    total = profit = exposure = 0
    for at in range(len(gains)):
        gain, size = gains[at], abs(sizes[at])
        profit += max(gain, 0) & LIMB_MASK
        profit_high[group] += max(gain, 0) >> LIMB_BITS
        total += gain & LIMB_MASK
        total_high[group] += gain >> LIMB_BITS
        exposure += size & LIMB_MASK
        exposure_high[group] += size >> LIMB_BITS
    return total, profit, exposure
