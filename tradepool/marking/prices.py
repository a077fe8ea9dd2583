"""The prices that marks are made at: given with the call, or the latest that bots have stored."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from tradepool.errors import Corrupt, InvalidTrade
from tradepool.logger import CauseLog, Logger
from tradepool.model.money import parse_decimal, plain
from tradepool.placing import known_id
from tradepool.store.redis_store import RedisStore

__all__ = ["LatestPrices", "Prices", "checked_prices"]

log = Logger(__name__)

_US_PER_S = 1_000_000
_SYMBOLS_CACHED = 1 << 14


class LatestPrices(NamedTuple):
    """The prices of all symbols that have one, at one moment."""

    prices: dict[str, Decimal]
    stale: dict[str, float]
    """Symbols whose price is older than it may be → its age in seconds."""


class _Price(NamedTuple):
    stored: bytes
    symbol: str
    price: Decimal | None
    """None where something else was stored."""
    at_us: int


class Prices:
    """The prices that bots feed, of all symbols; each keeps its time.

    A price older than `max_age_s` is stale; with 0 none is.
    """

    def __init__(self, store: RedisStore, max_age_s: float = 60.0) -> None:
        self._store = store
        self._max_age_us = max_age_s * _US_PER_S
        self._read: dict[bytes, _Price] = {}
        """Each symbol as the last look found it: what still has the same text need not be parsed."""
        self._wrong = CauseLog(log, "stored prices are none")

    def set_prices(self, prices: Mapping[str, object], at_us: int) -> int:
        """Store the price that each symbol has had since `at_us`, quote per base; how many were stored.

        A symbol that has a price of a later time keeps it. Raises: InvalidTrade naming the first symbol
        that is none or whose price is no positive number, before anything is stored; StoreUnavailable.
        """
        return self._store.set_prices(
            {symbol: plain(price) for symbol, price in checked_prices(prices).items()}, at_us
        )

    def latest(self, at_us: int) -> LatestPrices:
        """The latest price of every symbol that has one, and which of them are stale at `at_us`.

        What somebody else has stored and is no price is left out, and the log says so once: one wrong
        value must not keep everybody's marks from being made. Raises: StoreUnavailable.
        """
        known = self._read
        self._read = {
            symbol: before
            if (before := known.get(symbol)) is not None and before.stored == stored
            else _parsed(symbol, stored)
            for symbol, stored in self._store.prices().items()
        }
        prices = {found.symbol: found.price for found in self._read.values() if found.price is not None}
        self._tell_wrong(len(self._read) - len(prices))
        return LatestPrices(prices, self._stale(at_us))

    def _tell_wrong(self, count: int) -> None:
        if not count:
            self._wrong.worked()
            return
        first = next(found for found in self._read.values() if found.price is None)
        self._wrong.failed(
            Corrupt(f"{count} count as missing, such as {first.stored!r} of {first.symbol!r}: set its price")
        )

    def _stale(self, at_us: int) -> dict[str, float]:
        if not self._max_age_us:
            return {}
        oldest_us = at_us - self._max_age_us
        return {
            found.symbol: (at_us - found.at_us) / _US_PER_S
            for found in self._read.values()
            if found.price is not None and found.at_us < oldest_us
        }


def checked_prices(prices: Mapping[str, object]) -> dict[str, Decimal]:
    """`prices` as decimals. Raises: InvalidTrade naming a symbol whose price is no positive number."""
    if not isinstance(prices, Mapping):
        raise InvalidTrade("not prices by symbol", field="prices", value=prices, cure="give {symbol: price}")
    checked = {}
    for symbol, given in prices.items():
        _check_symbol(symbol)
        checked[symbol] = _checked_price(symbol, given)
    return checked


@lru_cache(maxsize=_SYMBOLS_CACHED)
def _check_symbol(symbol: str) -> None:
    # The same symbols come with every tick.
    known_id("symbol of a price", symbol)


def _checked_price(symbol: str, given: object) -> Decimal:
    price = parse_decimal(f"price of {symbol}", given)
    if price <= 0:
        raise InvalidTrade(
            "not positive", field=f"price of {symbol}", value=given, cure="give a price above 0"
        )
    return price


def _parsed(name: bytes, stored: bytes) -> _Price:
    """A price as `MarkValues.set_prices` stored it: its time, a blank, the price."""
    symbol = name.decode(errors="replace")
    at, _, text = stored.decode(errors="replace").partition(" ")
    if not (at.isascii() and at.isdecimal()):
        return _Price(stored, symbol, None, 0)
    try:
        return _Price(stored, symbol, _checked_price(symbol, text), int(at))
    except InvalidTrade:
        return _Price(stored, symbol, None, 0)
