"""The symbol table of a tick in the words that kernels.cu reads."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Floats, Ints
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE
from tradepool.pnl.cuda.device import Arithmetic
from tradepool.pnl.tables import Tables

__all__ = ["ENTRY_WORDS", "pack_entries"]

ENTRY_WORDS = 4
_WORD_BITS = 64
_CODES_PER_LANE = 2
_DIVISORS_REMEMBERED = 1 << 16


def pack_entries(tables: Tables, arithmetic: Arithmetic) -> Ints:
    """An Entry of kernels.cu by code, then one by fee class: int64, of shape (entries, ENTRY_WORDS)."""
    codes, fees = len(tables.limit), len(tables.fee_rate)
    entries = np.empty((codes + fees, ENTRY_WORDS), np.int64)
    entries[:codes, 0], entries[codes:, 0] = tables.multiplier, tables.fee_rate
    if arithmetic is Arithmetic.WHOLE:
        # Both codes of a lane have its divisor.
        lanes = np.array(
            [_whole(divisor) for divisor in tables.divisor[::_CODES_PER_LANE].tolist()], np.uint64
        )
        entries[:codes, 1:] = np.repeat(lanes.view(np.int64), _CODES_PER_LANE, axis=0)
        entries[codes:, 1:] = np.array(_whole(FEE_UNITS_PER_ONE), np.uint64).view(np.int64)
    else:
        entries[:codes, 1], entries[codes:, 1] = tables.divisor, FEE_UNITS_PER_ONE
        entries[:codes, 2], entries[codes:, 2] = _bits(tables.quotient), _bits(tables.fee_quotient)
        entries[:codes, 3] = _bits(tables.reciprocal)
        entries[codes:, 3] = _bits(np.array([1 / FEE_UNITS_PER_ONE]))
    return entries


def _bits(numbers: Floats) -> npt.NDArray[np.int64]:
    return numbers.view(np.int64)


@lru_cache(_DIVISORS_REMEMBERED)
def _whole(divisor: int) -> tuple[int, int, int]:
    """The divisor with its highest bit set, that one's reciprocal, and the shift between the two."""
    shift = _WORD_BITS - divisor.bit_length()
    shifted = divisor << shift
    return shifted, ((1 << 2 * _WORD_BITS) - 1) // shifted - (1 << _WORD_BITS), shift
