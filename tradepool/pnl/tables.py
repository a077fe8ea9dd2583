"""The symbol table of one tick: prices as integer ratios, and how far each kernel may be trusted.

A row's value is v = lots · M / D, rounded half to even. With P the price and e the lane's exponent, M/D is
P · 10^(8−e), or −10^(8−e) / P for an inverse contract, in lowest terms: the contract type is in the table
and a kernel has no branch on it.

A kernel estimates lots · (M/D) in float64 and corrects it by the exact residue lots·M − v·D, which wrapping
int64 holds as long as the true residue fits. Three roundings of 2⁻⁵³ each are between the estimate and the
truth, hence the limits:

* *narrow*, one estimate: |v| ≤ 2⁵⁰ − 1 leaves an error below 0.38. Lowered by ½, which is exact in that
  range, and rounded, it is v or v − 1, and the residue says which;
* *wide*, a second estimate, of the residue over D, is lowered instead: |v| < 2⁶¹, and the first residue,
  below 3·2⁻⁵³·|v|·D + D/2, must stay below 2⁶².

Both need D ≤ 2⁶⁰ and M in int64. Rows outside go through `decimal_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tradepool.errors import InvalidTrade
from tradepool.pnl.book.columns import Floats, Ints
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE, LOTS_MAX, FeeClasses, Lane, Lanes
from tradepool.pnl.position import EXACT, UNIT_PLACES

__all__ = [
    "Ratio",
    "Tables",
    "build_tables",
    "lane_ratio",
    "lots_max_narrow",
    "lots_max_wide",
    "usable_prices",
]


# The range that `in_range` grants to every figure, in one comparison.
_PRICE_MIN, _PRICE_END = Decimal("1e-60"), Decimal("1e61")
_NARROW_MAX = 2**50 - 1
_WIDE_BITS = 61
_RESIDUE_BITS = 62
_DIVISOR_MAX = 2**60
_MULTIPLIER_MAX = 2**63 - 1
_FLOAT_BITS = 53


class Ratio(NamedTuple):
    """An exact quotient M/D, D > 0."""

    multiplier: int
    divisor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a backend needs to mark every row once; the arrays below are indexed by a row's code."""

    multiplier: Ints
    divisor: Ints
    quotient: Floats
    """M/D in float64."""
    reciprocal: Floats
    """1/D in float64."""
    limit: Ints
    """A row counts only if |lots| ≤ limit; −1 for a lane without a price."""

    fee_rate: Ints
    """By fee class, in 10⁻⁷."""
    fee_quotient: Floats
    """The same as a fraction, in float64."""

    wide: bool
    """Whether some row needs the wide kernel."""
    partial: bool
    """Whether some row may be beyond its limit."""
    magnitude_max: int
    """Bound of |v| and of |unrealised| over the rows that count, in 10⁻⁸."""

    @property
    def value_signs(self) -> Ints:
        """The sign of v by code: 1 for longs and −1 for shorts, turned around for an inverse contract."""
        signs = np.where(self.multiplier < 0, -1, 1)
        signs[1::2] *= -1
        return signs


def usable_prices(
    symbols: Iterable[str], prices: Mapping[str, Decimal]
) -> tuple[dict[str, Decimal], tuple[str, ...]]:
    """The prices of `symbols`, and the sorted symbols that have none.

    Raises: InvalidTrade naming the symbol whose price is not a Decimal, not finite or not above 0.
    """
    usable: dict[str, Decimal] = {}
    missing: set[str] = set()
    for symbol in symbols:
        price = prices.get(symbol)
        if price is None:
            missing.add(symbol)
        elif not _is_price(price):
            raise InvalidTrade(
                "not a price", field=f"prices[{symbol}]", value=price, cure="give a finite Decimal above 0"
            )
        else:
            usable[symbol] = price
    return usable, tuple(sorted(missing))


def build_tables(lanes: Lanes, fees: FeeClasses, prices: Mapping[str, Decimal], cost_max: int) -> Tables:
    """The tables of one tick; `cost_max` bounds |cost| over all rows.

    What the last call worked out for these `lanes` is used again, so only changed prices cost Decimal work.
    """
    priced = _priced_lanes.setdefault(lanes, _PricedLanes())
    priced.follow(lanes.keys, prices)
    counted = np.array(lanes.counts, np.int64) > 0
    lots_max = np.array(lanes.lots_max, np.int64)
    # A lane without rows makes no tick wide or partial.
    limit = np.where(counted, priced.limit, LOTS_MAX)
    safe_lots = np.where(counted, np.minimum(lots_max, limit.clip(min=0)), 0)
    value_max = float((safe_lots * np.abs(priced.quotient)).max())
    fee_rate = np.array(fees.rates, np.int64)
    return Tables(
        multiplier=_by_code(np.where(counted, priced.multiplier, 0)),
        divisor=_by_code(np.where(counted, priced.divisor, 1)),
        quotient=np.where(counted, priced.quotient, 0.0).repeat(2),
        reciprocal=np.where(counted, priced.reciprocal, 1.0).repeat(2),
        limit=_by_code(limit),
        fee_rate=fee_rate,
        fee_quotient=fee_rate / FEE_UNITS_PER_ONE,
        wide=bool((safe_lots > priced.limit_narrow).any()),
        partial=bool((lots_max > limit).any() or (limit < 0).any()),
        # A product of float64 is too small by less than this.
        magnitude_max=2 * int(value_max * (1 + 2**-50) + 1) + cost_max,
    )


def lane_ratio(lane: Lane, price: Decimal) -> Ratio:
    """M/D such that a row of the lane is worth lots · M/D in 10⁻⁸."""
    shift = UNIT_PLACES - lane.exponent
    if lane.inverse:
        top, bottom = EXACT.scaleb(price, -shift).as_integer_ratio()
        return Ratio(-bottom, top)
    return Ratio(*EXACT.scaleb(price, shift).as_integer_ratio())


def lots_max_narrow(ratio: Ratio) -> int:
    """The largest |lots| that the narrow kernel marks exactly; 0 if none."""
    if not _fits(ratio):
        return 0
    return min(ratio.divisor * _NARROW_MAX // abs(ratio.multiplier), LOTS_MAX)


def lots_max_wide(ratio: Ratio) -> int:
    """The largest |lots| that the wide kernel marks exactly; 0 if none."""
    if not _fits(ratio):
        return 0
    by_value = (ratio.divisor << _WIDE_BITS) - 1
    # 4 instead of the proven 3 roundings of 2⁻⁵³, and D instead of D/2, leave room for their products.
    by_residue = (((1 << _RESIDUE_BITS) - ratio.divisor) << (_FLOAT_BITS - 2)) - 1
    return min(min(by_value, by_residue) // abs(ratio.multiplier), LOTS_MAX)


def _is_price(price: object) -> bool:
    return isinstance(price, Decimal) and price.is_finite() and _PRICE_MIN <= price < _PRICE_END


class _PricedLanes:
    """The exact part of the tables by lane, at the prices of the last tick."""

    def __init__(self) -> None:
        self._lanes: Sequence[Lane] = ()
        self._prices: list[Decimal | None] = []
        self._reset(())

    def follow(self, lanes: Sequence[Lane], prices: Mapping[str, Decimal]) -> None:
        """Work out the lanes that have another price, or are new; a list that is another one is all new."""
        if lanes is not self._lanes:
            self._reset(lanes)
        wanted = [prices.get(lane.symbol) for lane in lanes]
        new = len(wanted) - len(self._prices)
        if new:
            self._lengthen(new)
        pairs = enumerate(zip(wanted, self._prices, strict=True))
        changed = [at for at, (price, last) in pairs if price is not last and price != last]
        if changed:
            entries = zip(*(_entry(lanes[at], wanted[at]) for at in changed), strict=True)
            for column, cells in zip(self._columns(), entries, strict=True):
                column[changed] = cells
            self._prices = wanted

    def _columns(self) -> tuple[Ints | Floats, ...]:
        return (
            self.multiplier,
            self.divisor,
            self.quotient,
            self.reciprocal,
            self.limit,
            self.limit_narrow,
        )

    def _reset(self, lanes: Sequence[Lane]) -> None:
        self._lanes, self._prices = lanes, []
        self.multiplier, self.divisor = np.empty(0, np.int64), np.empty(0, np.int64)
        self.quotient, self.reciprocal = np.empty(0), np.empty(0)
        self.limit, self.limit_narrow = np.empty(0, np.int64), np.empty(0, np.int64)

    def _lengthen(self, new: int) -> None:
        """Add lanes without a price."""
        self._prices += [None] * new
        self.multiplier = np.append(self.multiplier, np.zeros(new, np.int64))
        self.divisor = np.append(self.divisor, np.ones(new, np.int64))
        self.quotient = np.append(self.quotient, np.zeros(new))
        self.reciprocal = np.append(self.reciprocal, np.ones(new))
        self.limit = np.append(self.limit, np.full(new, -1))
        self.limit_narrow = np.append(self.limit_narrow, np.zeros(new, np.int64))


def _entry(lane: Lane, price: Decimal | None) -> tuple[int, int, float, float, int, int]:
    """M, D, M/D and 1/D, and the limits of the wide and the narrow kernel, of a lane."""
    if price is None:
        return 0, 1, 0.0, 1.0, -1, 0
    ratio = lane_ratio(lane, price)
    limit = lots_max_wide(ratio)
    if not limit:
        return 0, 1, 0.0, 1.0, 0, 0
    multiplier, divisor = ratio
    # Python divides two ints with one rounding; numpy would round M and D first.
    return multiplier, divisor, multiplier / divisor, 1 / divisor, limit, lots_max_narrow(ratio)


_priced_lanes: WeakKeyDictionary[Lanes, _PricedLanes] = WeakKeyDictionary()


def _fits(ratio: Ratio) -> bool:
    return 0 < abs(ratio.multiplier) <= _MULTIPLIER_MAX and ratio.divisor <= _DIVISOR_MAX


def _by_code(by_lane: Ints) -> Ints:
    return np.repeat(by_lane, 2)
