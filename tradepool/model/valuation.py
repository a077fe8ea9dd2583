"""What amounts are worth: notional, the gross of a price move, and the effect of a fee.

Everything is pure Decimal arithmetic in the wide context; s = +1 long, −1 short, m = contract size.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from tradepool.model.fill import Fill
from tradepool.model.kinds import Market, Side
from tradepool.model.money import CONTEXT, ZERO, canonical, round_cost
from tradepool.model.symbols import SYMBOLS_CACHED, coins_of

__all__ = ["NO_FEE", "FeeEffect", "Terms", "fee_effect", "gross", "notional", "settlement", "terms_of"]


# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_BUY, _SELL, _INVERSE = Side.BUY, Side.SELL, Market.INVERSE
_HOLDING_COINS = frozenset({Market.SPOT, Market.MARGIN})


class Terms(NamedTuple):
    """What of a trade decides how its fills are valued."""

    market: Market
    side: Side
    contract_size: Decimal
    base_currency: str
    quote_currency: str
    settlement_currency: str

    @property
    def fees_lower_holding(self) -> bool:
        """Whether a fee in the base coin is taken out of the coins that were bought."""
        return self.side is _BUY and self.market in _HOLDING_COINS


class FeeEffect(NamedTuple):
    """Where one fee goes."""

    settled: Decimal
    """Settlement currency to subtract from the PnL."""
    held: Decimal
    """Base coins taken out of the position."""
    unpriced: bool
    """Paid in a coin without a recorded rate: neither of the above."""


@lru_cache(maxsize=SYMBOLS_CACHED)
def terms_of(market: str, side: str, symbol: str, contract_size: Decimal) -> Terms:
    """The terms of every trade of that kind."""
    coins = coins_of(symbol)
    return Terms(
        Market(market), Side(side), contract_size, coins.base, coins.quote, settlement(market, symbol)
    )


def settlement(market: str, symbol: str) -> str:
    """The coin that PnL is in: the quote, the part after ":", or the base of an inverse contract."""
    coins = coins_of(symbol)
    return coins.base if market == _INVERSE else coins.settle or coins.quote


NO_FEE = FeeEffect(ZERO, ZERO, unpriced=False)


def notional(market: Market, amount: Decimal, price: Decimal) -> Decimal:
    """Exact q·p in quote; for an inverse contract q/p in base, to 40 places."""
    if market is _INVERSE:
        return round_cost(CONTEXT.divide(amount, price))
    return canonical(CONTEXT.multiply(amount, price))


def gross(terms: Terms, cost: Decimal, value: Decimal) -> Decimal:
    """What leaving at notional `value` earns over the entry's notional `cost`: s·m·(value − cost).

    An inverse contract earns s·m·(cost − value), in the base coin.
    """
    if (terms.side is _SELL) != (terms.market is _INVERSE):
        value, cost = cost, value
    return CONTEXT.multiply(CONTEXT.subtract(value, cost), terms.contract_size)


def fee_effect(terms: Terms, fill: Fill) -> FeeEffect:
    """How the fee of `fill` counts.

    In the settlement currency it is subtracted; in the base coin of a long it lowers the holding and
    leaves the cost alone (elsewhere it is valued at the fill's own price); in a third coin it counts
    at the fill's `fee_price`, without one it is flagged and never taken for zero.
    """
    if not fill.fee:
        return NO_FEE
    currency = fill.fee_currency or terms.settlement_currency
    if currency == terms.settlement_currency:
        return FeeEffect(fill.fee, ZERO, unpriced=False)
    if currency == terms.base_currency and terms.fees_lower_holding and fill.fee > 0:
        return FeeEffect(ZERO, fill.fee, unpriced=False)
    value = _fee_value(terms, currency, fill)
    if value is None:
        return FeeEffect(ZERO, ZERO, unpriced=True)
    return FeeEffect(value, ZERO, unpriced=False)


def _fee_value(terms: Terms, currency: str, fill: Fill) -> Decimal | None:
    rate = fill.fee_price
    if rate is None and terms.market is _INVERSE:
        # It settles in its base coin, so a fee in the quote is the only other one the fill can price.
        is_quote = currency == terms.quote_currency
        return round_cost(CONTEXT.divide(fill.fee, fill.price)) if is_quote else None
    if rate is None and currency == terms.base_currency:
        rate = fill.price
    return None if rate is None else canonical(CONTEXT.multiply(fill.fee, rate))
