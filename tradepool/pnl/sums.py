"""What a backend hands back: sums in two limbs, exact far beyond int64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Ints

__all__ = ["LIMB_BITS", "LIMB_MASK", "Limbs", "Sums"]

LIMB_BITS = 32
LIMB_MASK = 2**LIMB_BITS - 1

_ZERO = np.int64(0)

Index = npt.NDArray[np.signedinteger[Any]]


class Limbs:
    """Sums of int64 numbers as high · 2³² + low.

    Exact for up to 2³¹ addends each: so many low halves, or high ones, stay below 2⁶³. A low limb alone is
    a sum too, where that fits int64.
    """

    def __init__(self, low: Ints, high: Ints | None = None) -> None:
        self.low = low
        self._high = high

    @classmethod
    def zeros(cls, size: int) -> Limbs:
        """That many sums of nothing yet."""
        return cls(np.zeros(size, np.int64), np.zeros(size, np.int64))

    @property
    def high(self) -> Ints:
        """The high limbs, which are written to only if they were given."""
        return np.broadcast_to(_ZERO, self.low.shape) if self._high is None else self._high

    def add(self, where: slice, low: Ints, high: Ints) -> None:
        """Add numbers given in halves to a stretch of the sums."""
        self.low[where] += low
        self.high[where] += high

    def scatter(self, index: Index, addends: Ints) -> None:
        """Add each of `addends` to the sum at its place in `index`, which may repeat."""
        np.add.at(self.low, index, addends & LIMB_MASK)
        np.add.at(self.high, index, addends >> LIMB_BITS)

    def add_to(self, sums: Limbs, index: Index) -> None:
        """Add each of these to the one of `sums` at its place in `index`, which may repeat."""
        np.add.at(sums.low, index, self.low)
        np.add.at(sums.high, index, self.high)

    def absorb(self, addends: Ints) -> None:
        """Add one number to every sum."""
        self.low += addends & LIMB_MASK
        self.high[:] += addends >> LIMB_BITS

    def narrowed(self) -> Ints:
        """The sums, which must fit int64."""
        return (self.high << LIMB_BITS) + self.low

    def tolist(self) -> list[int]:
        """The sums."""
        halves = zip(self.high.tolist(), self.low.tolist(), strict=True)
        return [(high << LIMB_BITS) + low for high, low in halves]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sums of one tick in 10⁻⁸: per group (user, currency), and per code (lane and direction)."""

    unrealised: Limbs
    profit: Limbs
    exposure: Limbs
    winners: Ints

    code_value: Limbs
    """Of v as the kernel has it: negative for a short, and for a long inverse."""
    code_unrealised: Limbs

    rows: Ints | None
    """Unrealised PnL by row, where it was asked for; 0 for rows that do not count."""

    @classmethod
    def zeros(cls, *, groups: int, codes: int, rows: int | None) -> Sums:
        """Sums of nothing yet."""
        return cls(
            unrealised=Limbs.zeros(groups),
            profit=Limbs.zeros(groups),
            exposure=Limbs.zeros(groups),
            winners=np.zeros(groups, np.int64),
            code_value=Limbs.zeros(codes),
            code_unrealised=Limbs.zeros(codes),
            rows=None if rows is None else np.zeros(rows, np.int64),
        )
