"""The row function in compiled loops over one block that stays in a core's first cache.

First the ratios of all rows are looked up, then the rows are marked: a loop that gathers and computes at
once does not become vector code, two loops do. The arithmetic is that of numpy_kernel.py, with the same
limits (tables.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tradepool.pnl.book.columns import Floats, Ints
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE
from tradepool.pnl.cpu.numba_cache import compiled
from tradepool.pnl.cpu.numba_division import Scalar, narrow, nearest, wide

__all__ = ["BLOCK_ROWS", "mark_block", "scratch"]

BLOCK_ROWS = 512
"""Rows marked at once."""

_FEE_RECIPROCAL = 1 / FEE_UNITS_PER_ONE


@compiled
def scratch() -> Any:
    """M, D, M/D, 1/D and the fee's quotient of each row of a block."""
    return (
        np.empty(BLOCK_ROWS, np.int64),
        np.empty(BLOCK_ROWS, np.int64),
        np.empty(BLOCK_ROWS, np.float64),
        np.empty(BLOCK_ROWS, np.float64),
        np.empty(BLOCK_ROWS, np.float64),
    )


@compiled
def mark_block(gains: Ints, sizes: Ints, figures: Any, tables: Any, flags: Any, scratch: Any) -> None:
    """Unrealised PnL and |value| of the rows of a block; both 0 where a row is beyond its limit.

    `figures` is lots, cost, code and fee class of each.
    """
    lots, cost, codes, fees = figures
    multiplier, divisor, quotient, reciprocal, limit, fee_quotient = tables
    is_wide, is_partial, has_fees = flags[0], flags[1], flags[2]
    top, bottom, ratio, inverse, fee_ratio = scratch
    _look_up(codes, multiplier, divisor, quotient, top, bottom, ratio)
    if is_wide:
        _look_up_one(codes, reciprocal, inverse)
        _value_wide(gains, lots, top, bottom, ratio, inverse)
    else:
        _value_narrow(gains, lots, top, bottom, ratio)
    if has_fees:
        _look_up_one(fees, fee_quotient, fee_ratio)
        if is_wide:
            _charge_wide(gains, sizes, cost, fee_ratio)
        else:
            _charge_narrow(gains, sizes, cost, fee_ratio)
    else:
        _charge_nothing(gains, sizes, cost)
    if is_partial:
        _drop_beyond(gains, sizes, lots, codes, limit)


@compiled
def _look_up(
    codes: Any, multiplier: Ints, divisor: Ints, quotient: Floats, top: Ints, bottom: Ints, ratio: Floats
) -> None:
    """M, D and M/D of every row, apart from the arithmetic: only without gathers does that vectorise."""
    for row in range(len(codes)):
        at = codes[row]
        top[row] = multiplier[at]
        bottom[row] = divisor[at]
        ratio[row] = quotient[at]


@compiled
def _look_up_one(index: Any, table: Floats, out: Floats) -> None:
    for row in range(len(index)):
        out[row] = table[index[row]]


@compiled
def _value_narrow(value: Ints, lots: Ints, top: Ints, bottom: Ints, ratio: Floats) -> None:
    for row in range(len(value)):
        value[row] = narrow(lots[row], top[row], bottom[row], ratio[row])


@compiled
def _value_wide(value: Ints, lots: Ints, top: Ints, bottom: Ints, ratio: Floats, inverse: Floats) -> None:
    for row in range(len(value)):
        value[row] = wide(lots[row], top[row], bottom[row], ratio[row], inverse[row])


@compiled
def _charge_narrow(gains: Ints, sizes: Ints, cost: Ints, fee_ratio: Floats) -> None:
    """Turn each row's value into its unrealised PnL, and keep |value|."""
    for row in range(len(gains)):
        size = abs(gains[row])
        fee = narrow(size, _fee_rate(fee_ratio[row]), FEE_UNITS_PER_ONE, fee_ratio[row])
        gains[row] = gains[row] - fee - cost[row]
        sizes[row] = size


@compiled
def _charge_wide(gains: Ints, sizes: Ints, cost: Ints, fee_ratio: Floats) -> None:
    for row in range(len(gains)):
        size = abs(gains[row])
        fee = wide(size, _fee_rate(fee_ratio[row]), FEE_UNITS_PER_ONE, fee_ratio[row], _FEE_RECIPROCAL)
        gains[row] = gains[row] - fee - cost[row]
        sizes[row] = size


@compiled
def _charge_nothing(gains: Ints, sizes: Ints, cost: Ints) -> None:
    for row in range(len(gains)):
        sizes[row] = abs(gains[row])
        gains[row] -= cost[row]


@compiled
def _fee_rate(ratio: Scalar) -> Scalar:
    """The rate in 10⁻⁷ that is nearest to `ratio`: cheaper than to look it up too."""
    return nearest(ratio * FEE_UNITS_PER_ONE)


@compiled
def _drop_beyond(gains: Ints, sizes: Ints, lots: Ints, codes: Any, limit: Ints) -> None:
    for row in range(len(lots)):
        if abs(lots[row]) > limit[codes[row]]:
            gains[row] = 0
            sizes[row] = 0
