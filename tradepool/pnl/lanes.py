"""How a book numbers what repeats: its groups, its lanes and its fee classes."""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tradepool.pnl.position import EXACT

__all__ = ["FEE_UNITS_PER_ONE", "LOTS_MAX", "NO_LANE", "FeeClasses", "Lane", "Lanes", "Numbered", "lots_of"]

LOTS_MAX = 2**63 - 1
FEE_UNITS_PER_ONE = 10**7
"""Fee classes count in 10⁻⁷; a finer rate goes through decimal rows."""

# Tried in this order: 8 places fit nearly every position, finer ones are for 18-decimal tokens,
# coarser ones for amounts beyond 9·10¹⁰. A row so finds a lane whatever rows came before it.
_LOT_EXPONENTS = (8, 12, 18, 4, 0)
_FEE_CLASSES_MAX = 2**16
_FORGET_SHARE = 10

K = TypeVar("K", bound=Hashable)


class Numbered(Generic[K]):
    """Keys numbered in order of arrival, and how many live rows each has."""

    def __init__(self) -> None:
        self.keys: list[K] = []
        self.counts: list[int] = []
        self._number_of: dict[K, int] = {}

    def number(self, key: K) -> int:
        """The number of `key`, a new one if it has none."""
        number = self._number_of.get(key)
        if number is None:
            number = self._number_of[key] = len(self.keys)
            self.keys.append(key)
            self.counts.append(0)
        return number

    def compact(self, *, keep_first: int = 0) -> npt.NDArray[np.int32]:
        """Forget keys without rows, but for the first `keep_first`; returns old number → new number.

        Does nothing until they are a tenth of all. Starts new lists, so whoever holds the former `keys`
        keeps them unchanged.
        """
        kept = [old for old, count in enumerate(self.counts) if count or old < keep_first]
        if len(kept) > len(self.keys) - len(self.keys) // _FORGET_SHARE:
            return np.arange(len(self.keys), dtype=np.int32)
        renumbered = np.zeros(len(self.keys), np.int32)
        renumbered[kept] = np.arange(len(kept), dtype=np.int32)
        self.keys = [self.keys[old] for old in kept]
        self.counts = [self.counts[old] for old in kept]
        self._number_of = {key: new for new, key in enumerate(self.keys)}
        return renumbered


class Lane(NamedTuple):
    """One line of the symbol table: an instrument at one lot size.

    A symbol has one lane per lot exponent its rows need, so that a dust amount of 18 decimals does not
    push the whole symbol out of int64.
    """

    symbol: str
    currency: str
    inverse: bool
    exponent: int
    """A lot is 10^-exponent of the quantity."""


NO_LANE = Lane(symbol="", currency="", inverse=False, exponent=0)
"""Lane 0, where tombstones are."""


class Lanes(Numbered[Lane]):
    """The lanes of a book; number 0 is NO_LANE."""

    def __init__(self) -> None:
        super().__init__()
        self.lots_max: list[int] = []
        """The largest |lots| each lane has had since the last compaction."""
        self.number(NO_LANE)

    def number(self, key: Lane) -> int:
        """The number of the lane `key`, a new one if it has none."""
        number = super().number(key)
        if number == len(self.lots_max):
            self.lots_max.append(0)
        return number

    def note(self, lane: int, lots: int) -> None:
        """Remember that a row of `lots` entered `lane`."""
        self.lots_max[lane] = max(self.lots_max[lane], abs(lots))


class FeeClasses:
    """Fee rates in 10⁻⁷ by class; class 0 is no fee."""

    def __init__(self) -> None:
        self.rates: list[int] = [0]
        self._class_of: dict[Decimal, int | None] = {Decimal(0): 0}

    def number(self, rate: Decimal) -> int | None:
        """The class of `rate`; None when it is finer than 10⁻⁷, beyond ±100 %, or one too many."""
        known = self._class_of.get(rate, -1)
        if known != -1:
            return known
        if len(self._class_of) > 2 * _FEE_CLASSES_MAX:
            return None
        number = self._class_of[rate] = self._new(rate)
        return number

    def _new(self, rate: Decimal) -> int | None:
        scaled = EXACT.scaleb(rate, 7)
        if abs(scaled) > FEE_UNITS_PER_ONE or int(scaled) != scaled or len(self.rates) == _FEE_CLASSES_MAX:
            return None
        self.rates.append(int(scaled))
        return len(self.rates) - 1


def lots_of(quantity: Decimal) -> tuple[int, int] | None:
    """(exponent, lots) with quantity = lots · 10^-exponent exactly; None if no lot size fits int64."""
    for exponent in _LOT_EXPONENTS:
        scaled = EXACT.scaleb(quantity, exponent)
        lots = int(scaled)
        if lots == scaled and abs(lots) <= LOTS_MAX:
            return exponent, lots
    return None
