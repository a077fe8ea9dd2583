"""Money as exact decimals: parsing at the edge, canonical form, and the one rounding."""

from __future__ import annotations

import decimal
from decimal import ROUND_HALF_EVEN, Decimal
from numbers import Real

from tradepool.errors import InvalidTrade, Rejected

__all__ = [
    "CONTEXT",
    "DECIMALS_MAX",
    "MAGNITUDE_MAX",
    "ONE",
    "UNIT",
    "ZERO",
    "canonical",
    "from_units",
    "minus",
    "parse_decimal",
    "plain",
    "plus",
    "quantise",
    "round_cost",
    "round_quotients",
    "round_ratio",
    "to_units",
]

DECIMALS_MAX = 18
"""Decimal places accepted from a caller."""
MAGNITUDE_MAX = Decimal(10) ** 24
"""Amounts, prices and sums given by a caller stay below this."""
UNIT = Decimal("1e-8")
"""What bookings are rounded to."""
CONTEXT = decimal.Context(prec=100, rounding=ROUND_HALF_EVEN)
"""Wide enough that sums and products of accepted numbers are exact."""

# The one zero and the one one: records leave out fields that are still their default object.
ZERO = Decimal(0)
ONE = Decimal(1)

# An average over 1e-8 units at a price of 1e6 needs that many to come out as the price, to 18 places.
_COST_UNIT = Decimal("1e-40")
_QUOTIENTS_UNIT = Decimal("1e-36")
_FINEST = Decimal(1).scaleb(-DECIMALS_MAX)
_LOWEST = -MAGNITUDE_MAX
# Bound once: these run several times for every figure of every trade.
_add, _subtract, _normalize = CONTEXT.add, CONTEXT.subtract, CONTEXT.normalize
_quantize, _scaleb = CONTEXT.quantize, CONTEXT.scaleb
_exactly = decimal.Context(prec=100, traps=[decimal.Inexact, decimal.InvalidOperation]).quantize
_TEXT_CHARS_MAX = 64
# An int of thousands of digits would cost quadratic time to turn into a Decimal.
_INT_BITS_MAX = 100
_HUGE = MAGNITUDE_MAX * 10
_CURE = f"a finite number below 1e24 with at most {DECIMALS_MAX} decimal places, best as text"


def parse_decimal(field: str, value: object, *, error: type[Rejected] = InvalidTrade) -> Decimal:
    """`value` as a canonical Decimal, from text, int, Decimal or (at the edge only) float; numpy's too.

    A float is read through `repr` and rounded to 18 places, since its digits beyond are noise;
    anything else is taken exactly or refused.

    Raises: `error` (a Rejected) for anything that is not a finite number below 1e24 with at most
    18 decimal places.
    """
    number = _from_text(value) if isinstance(value, str) else _from_number(value)
    if number is None:
        raise error("not a number", field=field, value=value, cure=_CURE)
    if not number.is_finite():
        raise error("not finite", field=field, value=value, cure=_CURE)
    if not _LOWEST < number < MAGNITUDE_MAX:
        raise error("out of range", field=field, value=value, cure=_CURE)
    try:
        _exactly(number, _FINEST)
    except (decimal.Inexact, decimal.InvalidOperation) as problem:
        raise error("too many decimal places", field=field, value=value, cure=_CURE) from problem
    return canonical(number)


def canonical(x: Decimal) -> Decimal:
    """`x` without trailing zeros, exponent or negative zero; equal numbers get equal text."""
    if not x:
        return ZERO
    # A sum has the smaller exponent of both, so nothing is left of one above that of ZERO.
    x = _add(_normalize(x), ZERO)
    return ONE if x == ONE else x


def plus(x: Decimal, y: Decimal) -> Decimal:
    """The exact sum of two canonical numbers, canonical as well; most of what is added is 0."""
    if not y:
        return x
    return canonical(_add(x, y)) if x else y


def minus(x: Decimal, y: Decimal) -> Decimal:
    """The exact difference of two canonical numbers, canonical as well."""
    return canonical(_subtract(x, y)) if y else x


def quantise(x: Decimal) -> Decimal:
    """`x` rounded half even to 8 places: how every booked figure is stored."""
    return canonical(_quantize(x, UNIT)) if x else ZERO


def round_cost(x: Decimal) -> Decimal:
    """`x` rounded to 40 places: how a quotient inside the cost fold is kept finite."""
    return canonical(_quantize(x, _COST_UNIT)) if x else ZERO


def round_quotients(x: Decimal) -> Decimal:
    """`x`, a sum of thousands of `round_cost` quotients, without the places that their rounding reaches."""
    return canonical(_quantize(x, _QUOTIENTS_UNIT)) if x else ZERO


def round_ratio(x: Decimal) -> Decimal:
    """`x` rounded to 18 places: averages and returns, which are no bookings."""
    return canonical(_quantize(x, _FINEST)) if x else ZERO


def to_units(x: Decimal) -> int:
    """`x` in integer units of 1e-8, rounded half even."""
    return round(_scaleb(x, 8))


def from_units(units: int) -> Decimal:
    """The amount that `units` of 1e-8 are worth."""
    return canonical(Decimal(units).scaleb(-8, context=CONTEXT))


def plain(x: Decimal) -> str:
    """`x` in positional notation, never with an exponent."""
    return format(x, "f")


def _from_number(value: object) -> Decimal | None:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, float):
        return _from_float(float(value))
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value) if value.bit_length() <= _INT_BITS_MAX else _HUGE
    # numpy's numbers print what they mean; its smaller floats, made a float first, would show their noise.
    return _from_text(str(value)) if isinstance(value, Real) else None


def _from_float(value: float) -> Decimal:
    number = Decimal(repr(value))
    return _quantize(number, _FINEST) if number.is_finite() and _LOWEST < number < MAGNITUDE_MAX else number


def _from_text(text: str) -> Decimal | None:
    if len(text) > _TEXT_CHARS_MAX or "_" in text or not text.isascii():
        return None
    try:
        return Decimal(text)
    except decimal.InvalidOperation:
        return None
