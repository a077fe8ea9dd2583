"""Marks in exact decimal and integer arithmetic, one row at a time.

The fallback for rows whose figures do not fit the int64 kernels, and the oracle those kernels are
tested against. Slow and free of limits: a few microseconds a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from tradepool.pnl.position import EXACT, UNIT_PLACES, Figures, to_units

__all__ = [
    "DecimalRow",
    "DecimalSums",
    "RowMark",
    "SymbolTally",
    "UserTally",
    "fold_rows",
    "half_even",
    "mark_row",
]


class DecimalRow(NamedTuple):
    """One position with exact figures, and what it is added under."""

    trade_id: str
    user_id: str
    currency: str
    symbol: str
    figures: Figures


class RowMark(NamedTuple):
    """Value and unrealised PnL of a row in 10⁻⁸; the value of an inverse long is negative."""

    value: int
    unrealised: int


@dataclass(slots=True)
class UserTally:
    """Sums over the rows of one (user, currency), money in 10⁻⁸."""

    unrealised: int = 0
    profit: int = 0
    exposure: int = 0
    winners: int = 0
    count: int = 0
    unmarked: int = 0
    """Rows without a price, in none of the sums."""

    def add(self, row: RowMark) -> None:
        """Add one marked row."""
        self.unrealised += row.unrealised
        self.profit += max(row.unrealised, 0)
        self.exposure += abs(row.value)
        self.winners += row.unrealised > 0
        self.count += 1

    def absorb(self, other: UserTally) -> None:
        """Add the sums of `other`."""
        self.unrealised += other.unrealised
        self.profit += other.profit
        self.exposure += other.exposure
        self.winners += other.winners
        self.count += other.count
        self.unmarked += other.unmarked


@dataclass(slots=True)
class SymbolTally:
    """Sums over the rows of one (symbol, currency), money in 10⁻⁸."""

    unrealised: int = 0
    long_value: int = 0
    short_value: int = 0
    count: int = 0

    def add(self, row: RowMark, *, long: bool) -> None:
        """Add one marked row to the side it is on."""
        self.unrealised += row.unrealised
        self.long_value += abs(row.value) if long else 0
        self.short_value -= 0 if long else abs(row.value)
        self.count += 1


@dataclass(slots=True)
class DecimalSums:
    """The sums over some rows, by (user, currency) and by (symbol, currency), and each row's PnL."""

    users: dict[tuple[str, str], UserTally] = field(default_factory=dict)
    symbols: dict[tuple[str, str], SymbolTally] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def fold_rows(rows: Iterable[DecimalRow], prices: Mapping[str, Decimal]) -> DecimalSums:
    """Mark and add `rows`; one whose symbol has no price only counts as its user's `unmarked`."""
    sums = DecimalSums()
    for row in rows:
        user = sums.users.setdefault((row.user_id, row.currency), UserTally())
        price = prices.get(row.symbol)
        if price is None:
            user.unmarked += 1
            continue
        marked = mark_row(row.figures, price)
        user.add(marked)
        symbol = sums.symbols.setdefault((row.symbol, row.currency), SymbolTally())
        symbol.add(marked, long=row.figures.quantity > 0)
        sums.rows[row.trade_id] = marked.unrealised
    return sums


def mark_row(figures: Figures, price: Decimal) -> RowMark:
    """Value v = quantity · price (inverse: −quantity / price), fee = |v| · rate, each rounded half to even.

    unrealised = v − fee − cost. `price` is positive and finite.
    """
    value = (
        _inverse_value(figures.quantity, price) if figures.inverse else _linear_value(figures.quantity, price)
    )
    fee = EXACT.multiply(Decimal(abs(value)), figures.fee_rate).to_integral_value(rounding=ROUND_HALF_EVEN)
    return RowMark(value, value - int(fee) - figures.cost_units)


def half_even(numerator: int, denominator: int) -> int:
    """The nearest int to numerator / denominator, ties to the even one; `denominator` is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))


def _linear_value(quantity: Decimal, price: Decimal) -> int:
    return to_units(EXACT.multiply(quantity, price))


def _inverse_value(quantity: Decimal, price: Decimal) -> int:
    quantity_top, quantity_bottom = quantity.as_integer_ratio()
    price_top, price_bottom = price.as_integer_ratio()
    return half_even(-quantity_top * price_bottom * 10**UNIT_PLACES, quantity_bottom * price_top)
