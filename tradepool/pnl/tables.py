"""The symbol table of one tick: prices as integer ratios, and how far each kernel may be trusted.

A row's value is v = lots · M / D, rounded half to even. With P the price and e the lane's exponent, M/D is
P · 10^(8−e), or −10^(8−e) / P for an inverse contract, in lowest terms: the contract type is in the table
and a kernel has no branch on it.

A kernel estimates lots · (M/D) in float64 and corrects it by the exact residue lots·M − v·D, which wrapping
int64 holds as long as the true residue fits. Three roundings of 2⁻⁵³ each are between the estimate and the
truth, hence the limits:

* *narrow*, one estimate: |v| < 2⁵⁰ leaves an error below 0.38, the residue below D, one step corrects it;
* *wide*, a second estimate of the residue: |v| < 2⁶¹, and the first residue, below 3·2⁻⁵³·|v|·D + D/2, must
  stay below 2⁶².

Both need D ≤ 2⁶⁰ and M in int64. Rows outside go through `decimal_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from tradepool.errors import InvalidTrade
from tradepool.pnl.columns import Floats, Ints
from tradepool.pnl.lanes import FEE_UNITS_PER_ONE, LOTS_MAX, FeeClasses, Lane, Lanes
from tradepool.pnl.position import EXACT, UNIT_PLACES, in_range

__all__ = [
    "COST_MAX",
    "Ratio",
    "Tables",
    "build_tables",
    "lane_ratio",
    "lots_max_narrow",
    "lots_max_wide",
    "usable_prices",
]

COST_MAX = 2**62 - 1
"""Largest |cost| of an int64 row: with |v| and |fee| ≤ 2⁶¹ the PnL still fits."""

_NARROW_BITS = 50
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


class _Entry(NamedTuple):
    ratio: Ratio
    limit: int
    value_max: int
    wide: bool
    partial: bool


# A lane where nothing can be marked; with no rows at all it must not make the tick partial.
_UNPRICED = _Entry(Ratio(0, 1), -1, 0, wide=False, partial=True)
_EMPTY = _Entry(Ratio(0, 1), LOTS_MAX, 0, wide=False, partial=False)


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
        elif not in_range(price) or price <= 0:
            raise InvalidTrade(
                "not a price", field=f"prices[{symbol}]", value=price, cure="give a finite Decimal above 0"
            )
        else:
            usable[symbol] = price
    return usable, tuple(sorted(missing))


def build_tables(lanes: Lanes, fees: FeeClasses, prices: Mapping[str, Decimal], cost_max: int) -> Tables:
    """The tables of one tick, in O(lanes); `cost_max` bounds |cost| over all rows."""
    entries = [
        _entry(lane, lots_max, prices.get(lane.symbol)) if count else _EMPTY
        for lane, lots_max, count in zip(lanes.keys, lanes.lots_max, lanes.counts, strict=True)
    ]
    multipliers = [entry.ratio.multiplier for entry in entries]
    divisors = [entry.ratio.divisor for entry in entries]
    fee_rate = np.array(fees.rates, np.int64)
    return Tables(
        multiplier=_by_code(np.array(multipliers, np.int64)),
        divisor=_by_code(np.array(divisors, np.int64)),
        # Python divides two ints with one rounding; numpy would round M and D first.
        quotient=np.repeat(np.array([m / d for m, d in zip(multipliers, divisors, strict=True)]), 2),
        reciprocal=np.repeat(np.array([1 / d for d in divisors]), 2),
        limit=_by_code(np.array([entry.limit for entry in entries], np.int64)),
        fee_rate=fee_rate,
        fee_quotient=fee_rate / FEE_UNITS_PER_ONE,
        wide=any(entry.wide for entry in entries),
        partial=any(entry.partial for entry in entries),
        magnitude_max=2 * max(entry.value_max for entry in entries) + cost_max,
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
    return min(((ratio.divisor << _NARROW_BITS) - 1) // abs(ratio.multiplier), LOTS_MAX)


def lots_max_wide(ratio: Ratio) -> int:
    """The largest |lots| that the wide kernel marks exactly; 0 if none."""
    if not _fits(ratio):
        return 0
    by_value = (ratio.divisor << _WIDE_BITS) - 1
    # 4 instead of the proven 3 roundings of 2⁻⁵³, and D instead of D/2, leave room for their products.
    by_residue = (((1 << _RESIDUE_BITS) - ratio.divisor) << (_FLOAT_BITS - 2)) - 1
    return min(min(by_value, by_residue) // abs(ratio.multiplier), LOTS_MAX)


def _entry(lane: Lane, lots_max: int, price: Decimal | None) -> _Entry:
    if price is None:
        return _UNPRICED
    ratio = lane_ratio(lane, price)
    limit = lots_max_wide(ratio)
    if limit == 0:
        return _Entry(Ratio(0, 1), 0, 0, wide=False, partial=lots_max > 0)
    counted_max = min(lots_max, limit)
    return _Entry(
        ratio,
        limit,
        value_max=counted_max * abs(ratio.multiplier) // ratio.divisor + 1,
        wide=counted_max > lots_max_narrow(ratio),
        partial=lots_max > limit,
    )


def _fits(ratio: Ratio) -> bool:
    return abs(ratio.multiplier) <= _MULTIPLIER_MAX and ratio.divisor <= _DIVISOR_MAX


def _by_code(by_lane: Ints) -> Ints:
    return np.repeat(by_lane, 2)
