"""The exact division of one row in compiled code, inlined into the loops that call it.

The arithmetic is that of numpy_kernel.py, with the same limits (tables.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tradepool.pnl.cpu.numba_cache import compiled

__all__ = ["Scalar", "narrow", "nearest", "wide"]

# 1.5 · 2⁵²: adding it to |x| < 2⁵¹ rounds x half to even and leaves the integer in the low bits.
_ROUNDER = 6755399441055744.0
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))
_SIGN_SHIFT = 63

Scalar = Any
"""An int64 or float64 of compiled code, or the Python number it stands for."""


@compiled
def narrow(lots: Scalar, top: Scalar, bottom: Scalar, ratio: Scalar) -> Scalar:
    """Quotient lots · M / D half to even, where |result| ≤ 2⁵⁰ − 1."""
    guess = nearest(lots * ratio - 0.5)
    return _settled(guess, lots * top - guess * bottom, bottom)


@compiled
def wide(lots: Scalar, top: Scalar, bottom: Scalar, ratio: Scalar, inverse: Scalar) -> Scalar:
    """Quotient lots · M / D half to even, where |result| < 2⁶¹: what an estimate leaves is divided again."""
    guess = np.int64(np.rint(lots * ratio))
    residue = lots * top - guess * bottom
    correction = nearest(residue * inverse - 0.5)
    return _settled(guess + correction, residue - correction * bottom, bottom)


@compiled
def nearest(number: Scalar) -> Scalar:
    """The int64 nearest to a float64 below 2⁵¹, ties to the even one."""
    return np.float64(number + _ROUNDER).view(np.int64) - _ROUNDER_BITS


@compiled
def _settled(result: Scalar, residue: Scalar, bottom: Scalar) -> Scalar:
    """`result`, or one more where twice the residue is above D, or is D while `result` is odd."""
    # A negative number shifted by 63 is −1, any other 0.
    return result - ((bottom - (result & 1) - residue - residue) >> _SIGN_SHIFT)
