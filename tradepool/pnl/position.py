"""One open position as the book takes it, and its figures checked once at the door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from itertools import repeat
from typing import Any, NamedTuple

from tradepool.errors import InvalidTrade

__all__ = [
    "EXACT",
    "UNIT_PLACES",
    "FigureColumns",
    "Figures",
    "Position",
    "figure_columns",
    "figures_of",
    "from_units",
    "in_range",
    "to_units",
]

UNIT_PLACES = 8
"""Money inside this package is an int count of 10⁻⁸."""

# Only products and shifts run in this context and they are exact at this precision; a division
# would try to fill it, so quotients go through integers instead.
EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_EVEN)

_IS_INVERSE = {"spot": False, "margin": False, "linear": False, "inverse": True}
_MAGNITUDE_MAX = 60
_ONE = Decimal(1)
_ZERO = Decimal(0)
_UNITS_PER_ONE = Decimal(10**UNIT_PLACES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The open part of one trade.

    `amount` is signed (long +, short −), in base currency or contracts. `cost` is signed so that
    unrealised = value − fee − cost; it holds the entry value and the entry fees not yet matched and
    counts at 10⁻⁸, rounded half to even. `fee_rate` is the exit fee as a fraction of |value|, negative
    for a rebate. Money is in `currency`, the settlement currency.
    """

    trade_id: str
    user_id: str
    currency: str
    symbol: str
    market: str
    amount: Decimal
    cost: Decimal
    contract_size: Decimal = _ONE
    fee_rate: Decimal = _ZERO


class Figures(NamedTuple):
    """What a position's PnL depends on, besides the price."""

    quantity: Decimal
    """Signed amount · contract size."""
    cost_units: int
    fee_rate: Decimal
    inverse: bool


class FigureColumns(NamedTuple):
    """The figures of many positions, each a list."""

    quantities: list[Decimal]
    cost_units: list[int]
    fee_rates: list[Decimal]
    inverse: list[bool]

    def at(self, index: int) -> Figures:
        """Those of one position."""
        return Figures(
            self.quantities[index], self.cost_units[index], self.fee_rates[index], self.inverse[index]
        )


def figure_columns(positions: Sequence[Position]) -> FigureColumns:
    """What `figures_of` gives of each of `positions`, at a third of the time.

    Raises: InvalidTrade, as `figures_of` for the first position it refuses.
    """
    amounts = [position.amount for position in positions]
    costs = [position.cost for position in positions]
    sizes = [position.contract_size for position in positions]
    fee_rates = [position.fee_rate for position in positions]
    inverse = [_IS_INVERSE.get(position.market) for position in positions]
    plain = all(map(_are_plain, (amounts, costs, fee_rates, sizes)))
    if not plain or None in inverse or sizes.count(_ONE) != len(sizes):
        return FigureColumns(*map(list, zip(*map(figures_of, positions), strict=True)))
    units = map(EXACT.to_integral_value, map(EXACT.multiply, costs, repeat(_UNITS_PER_ONE)))
    return FigureColumns(amounts, list(map(int, units)), fee_rates, [value is True for value in inverse])


def figures_of(position: Position) -> Figures:
    """The figures of `position`, exact but for `cost`, which is rounded to 10⁻⁸.

    Raises: InvalidTrade naming the trade and the field, for an unknown market, a NaN, an infinity,
    a contract size that is not positive, or a magnitude outside 10^±60.
    """
    is_inverse = _IS_INVERSE.get(position.market)
    if is_inverse is None:
        raise _invalid(position, "market", position.market, "one of spot, margin, linear, inverse")
    quantity, contract_size, fee_rate = position.amount, position.contract_size, position.fee_rate
    for value in (quantity, position.cost, contract_size, fee_rate):
        if not in_range(value):
            raise _invalid(
                position, _field_of(position, value), value, "a finite Decimal within 10^±60, or 0"
            )
    if contract_size != _ONE:
        if contract_size <= 0:
            raise _invalid(position, "contract_size", contract_size, "above 0")
        quantity = EXACT.multiply(quantity, contract_size)
    return Figures(quantity, to_units(position.cost), fee_rate, is_inverse)


def in_range(value: object) -> bool:
    """Whether `value` is a Decimal that is zero or of a magnitude within 10^±60."""
    return (
        isinstance(value, Decimal)
        and value.is_finite()
        and (-_MAGNITUDE_MAX <= value.adjusted() <= _MAGNITUDE_MAX or not value)
    )


def _are_plain(values: list[Any]) -> bool:
    """Whether all are Decimals in range, none of them a zero written with an exponent out of it."""
    try:
        if not all(map(Decimal.is_finite, values)):
            return False
    except TypeError:
        return False
    exponents = list(map(Decimal.adjusted, values))
    return min(exponents) >= -_MAGNITUDE_MAX and max(exponents) <= _MAGNITUDE_MAX


def to_units(money: Decimal) -> int:
    """`money` in 10⁻⁸, rounded half to even."""
    return int(EXACT.to_integral_value(EXACT.multiply(money, _UNITS_PER_ONE)))


def from_units(units: int) -> Decimal:
    """The money of that many 10⁻⁸, exactly."""
    return EXACT.scaleb(Decimal(units), -UNIT_PLACES)


def _field_of(position: Position, value: object) -> str:
    fields = ("amount", "cost", "contract_size", "fee_rate")
    return next(field for field in fields if getattr(position, field) is value)


def _invalid(position: Position, field: str, value: object, cure: str) -> InvalidTrade:
    return InvalidTrade(
        f"trade {position.trade_id} cannot enter the book", field=field, value=value, cure=cure
    )
