"""The prices that marks are made at: given with the call, or the latest that bots have stored."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from tradepool.errors import InvalidTrade
from tradepool.model.money import parse_decimal, plain
from tradepool.placing import known_id
from tradepool.store.redis_store import RedisStore

__all__ = ["Prices", "checked_prices"]


class Prices:
    """The prices that bots feed, of all symbols."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def set_prices(self, prices: Mapping[str, object]) -> None:
        """Store the latest price of each symbol, quote per base. Raises: InvalidTrade naming the symbol."""
        self._store.set_prices({symbol: plain(price) for symbol, price in checked_prices(prices).items()})

    def latest(self) -> dict[str, Decimal]:
        """The latest price of every symbol that has one. Raises: StoreUnavailable."""
        return checked_prices(self._store.prices())


def checked_prices(prices: Mapping[str, object]) -> dict[str, Decimal]:
    """`prices` as decimals. Raises: InvalidTrade naming a symbol whose price is no positive number."""
    if not isinstance(prices, Mapping):
        raise InvalidTrade("not prices by symbol", field="prices", value=prices, cure="give {symbol: price}")
    checked = {}
    for symbol, given in prices.items():
        known_id("symbol of a price", symbol)
        price = parse_decimal(f"price of {symbol}", given)
        if price <= 0:
            raise InvalidTrade(
                "not positive", field=f"price of {symbol}", value=given, cure="give a price above 0"
            )
        checked[symbol] = price
    return checked
