"""How a book numbers what repeats: its groups, its lanes and its fee classes."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from itertools import repeat
from operator import eq
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from tradepool.pnl.position import EXACT

__all__ = [
    "FEE_PLACES",
    "FEE_UNITS_PER_ONE",
    "LOTS_MAX",
    "NO_LANE",
    "FeeClasses",
    "Lane",
    "Lanes",
    "Numbered",
    "Numbering",
    "lots_columns",
    "lots_of",
]

LOTS_MAX = 2**63 - 1
FEE_PLACES = 7
FEE_UNITS_PER_ONE = 10**FEE_PLACES
"""Fee classes count in 10⁻⁷; a finer rate goes through decimal rows."""

# Tried in this order: 8 places fit nearly every position, finer ones are for 18-decimal tokens,
# coarser ones for amounts beyond 9·10¹⁰. A row so finds a lane whatever rows came before it.
_LOT_SIZES = tuple((exponent, Decimal(10**exponent)) for exponent in (8, 12, 18, 4, 0))
_FEE_CLASSES_MAX = 2**16
_FORGET_SHARE = 10
_UNKNOWN = -1

K = TypeVar("K", bound=Hashable)


class Numbered(Generic[K]):
    """Keys numbered in order of arrival, and how many live rows each has."""

    def __init__(self, keys: Iterable[K] = (), counts: Iterable[int] = ()) -> None:
        self.keys = list(keys)
        self.counts = array("q", counts)
        """numpy reads these without a look at each."""
        self._number_of = {key: number for number, key in enumerate(self.keys)}

    def number(self, key: K) -> int:
        """The number of `key`, a new one if it has none."""
        number = self._number_of.get(key)
        if number is None:
            number = self._number_of[key] = len(self.keys)
            self.keys.append(key)
            self.counts.append(0)
        return number

    def numbers(self, *parts: Sequence[Any]) -> list[int]:
        """The numbers of keys that are tuples, given as one list for each part of them."""
        # Nearly all are known, and `zip` then makes no tuple for each: the garbage collector has rest.
        known: list[int | None] = list(
            map(self._number_of.get, cast("Iterable[K]", zip(*parts, strict=True)))
        )
        if None not in known:
            return cast("list[int]", known)
        keys = cast("Iterable[K]", zip(*parts, strict=True))
        return [
            self.number(key) if number is None else number for key, number in zip(keys, known, strict=True)
        ]

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
        self.counts = array("q", (self.counts[old] for old in kept))
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

    def __init__(
        self, keys: Iterable[Lane] = (NO_LANE,), counts: Iterable[int] = (0,), lots_max: Iterable[int] = (0,)
    ) -> None:
        super().__init__(keys, counts)
        self.lots_max = list(lots_max)
        """The largest |lots| each lane has had since the last compaction."""

    def number(self, key: Lane) -> int:
        """The number of the lane `key`, a new one if it has none."""
        number = self._number_of.get(key)
        if number is None:
            number = super().number(Lane(*key))
            self.lots_max.append(0)
        return number


class FeeClasses:
    """Fee rates in 10⁻⁷ by class; class 0 is no fee."""

    def __init__(self, rates: Iterable[int] = (0,)) -> None:
        self.rates = list(rates)
        self._class_of: dict[Decimal, int | None] = {
            EXACT.scaleb(Decimal(rate), -FEE_PLACES): number for number, rate in enumerate(self.rates)
        }

    def number(self, rate: Decimal) -> int | None:
        """The class of `rate`; None when it is finer than 10⁻⁷, beyond ±100 %, or one too many."""
        known = self._class_of.get(rate, _UNKNOWN)
        if known != _UNKNOWN:
            return known
        if len(self._class_of) > 2 * _FEE_CLASSES_MAX:
            return None
        number = self._class_of[rate] = self._new(rate)
        return number

    def numbers(self, rates: Sequence[Decimal]) -> list[int | None]:
        """The class of each of `rates`, as `number` has it."""
        known = zip(rates, map(self._class_of.get, rates, repeat(_UNKNOWN)), strict=True)
        return [self.number(rate) if number == _UNKNOWN else number for rate, number in known]

    def _new(self, rate: Decimal) -> int | None:
        scaled = EXACT.scaleb(rate, FEE_PLACES)
        if abs(scaled) > FEE_UNITS_PER_ONE or int(scaled) != scaled or len(self.rates) == _FEE_CLASSES_MAX:
            return None
        self.rates.append(int(scaled))
        return len(self.rates) - 1


class Numbering(NamedTuple):
    """What a book numbers, together."""

    groups: Numbered[tuple[str, str]]
    lanes: Lanes
    fees: FeeClasses


def lots_of(quantity: Decimal) -> tuple[int, int] | None:
    """(exponent, lots) with quantity = lots · 10^-exponent exactly; None if no lot size fits int64."""
    for exponent, lots_per_one in _LOT_SIZES:
        scaled = EXACT.multiply(quantity, lots_per_one)
        if scaled == EXACT.to_integral_value(scaled):
            lots = int(scaled)
            if -LOTS_MAX <= lots <= LOTS_MAX:
                return exponent, lots
    return None


def lots_columns(quantities: Sequence[Decimal]) -> tuple[list[int | None], list[int]]:
    """What `lots_of` gives of each quantity, as exponents and lots; None and 0 where it gives nothing."""
    first_exponent, lots_per_one = _LOT_SIZES[0]
    scaled = list(map(EXACT.multiply, quantities, repeat(lots_per_one)))
    exponents: list[int | None] = [first_exponent] * len(scaled)
    lots = list(map(int, scaled))
    is_whole = map(eq, scaled, map(EXACT.to_integral_value, scaled))
    for index, (whole, size) in enumerate(zip(is_whole, lots, strict=True)):
        if not whole or not -LOTS_MAX <= size <= LOTS_MAX:
            exponents[index], lots[index] = lots_of(quantities[index]) or (None, 0)
    return exponents, lots
