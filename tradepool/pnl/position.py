"""One open position as the book takes it, and its figures checked once at the door."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

from tradepool.errors import InvalidTrade

__all__ = ["EXACT", "UNIT_PLACES", "Figures", "Position", "figures_of", "from_units", "in_range", "to_units"]

UNIT_PLACES = 8
"""Money inside this package is an int count of 10⁻⁸."""

# Only products and shifts run in this context and they are exact at this precision; a division
# would try to fill it, so quotients go through integers instead.
EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_EVEN)

_MARKETS = frozenset({"spot", "margin", "linear", "inverse"})
_MAGNITUDE_MAX = 60
_ONE = Decimal(1)
_ZERO = Decimal(0)


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


def figures_of(position: Position) -> Figures:
    """The figures of `position`, exact but for `cost`, which is rounded to 10⁻⁸.

    Raises: InvalidTrade naming the trade and the field, for an unknown market, a NaN, an infinity,
    a contract size that is not positive, or a magnitude outside 10^±60.
    """
    if position.market not in _MARKETS:
        raise _invalid(position, "market", position.market, "one of spot, margin, linear, inverse")
    for value in (position.amount, position.cost, position.contract_size, position.fee_rate):
        if not in_range(value):
            raise _invalid(
                position, _field_of(position, value), value, "a finite Decimal within 10^±60, or 0"
            )
    if position.contract_size <= 0:
        raise _invalid(position, "contract_size", position.contract_size, "above 0")
    quantity = EXACT.multiply(position.amount, position.contract_size)
    return Figures(quantity, to_units(position.cost), position.fee_rate, position.market == "inverse")


def in_range(value: object) -> bool:
    """Whether `value` is a Decimal that is zero or of a magnitude within 10^±60."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return False
    return -_MAGNITUDE_MAX <= value.adjusted() <= _MAGNITUDE_MAX or not value


def to_units(money: Decimal) -> int:
    """`money` in 10⁻⁸, rounded half to even."""
    return int(EXACT.scaleb(money, UNIT_PLACES).to_integral_value(rounding=ROUND_HALF_EVEN))


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
