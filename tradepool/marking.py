"""Marks: what the open trades are worth at a set of prices, exact, with the latest ones kept readable."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.model.money import CONTEXT, parse_decimal, plain
from tradepool.model.times import parse_time
from tradepool.model.trade import Direction, Market, Trade
from tradepool.placing import known_id
from tradepool.pnl.backend import Backend
from tradepool.pnl.book import Book
from tradepool.pnl.marks import Marks, mark
from tradepool.pnl.position import Position
from tradepool.store.redis_store import RedisStore

__all__ = ["Marking", "position_of"]


class Marking:
    """Keeps a book of the open trades and marks it. Threads share an instance, one at a time.

    Before each mark the shards with a new outbox position are read again; the others keep their rows.
    Who was marked last time and has nothing to mark now gets marks without figures. A new process does
    not know whom the one before it has marked: the marks of those who are flat by then keep their time.
    """

    def __init__(
        self, store: RedisStore, choose_backend: Callable[[], Backend], now_us: Callable[[], int]
    ) -> None:
        self._store = store
        self._choose_backend = choose_backend
        self._now_us = now_us
        self._lock = threading.Lock()
        self._book = Book()
        self._positions: dict[int, str] = {}
        self._held: dict[int, set[str]] = {}
        self._reads = 0
        self._marked: set[str] = set()

    @cached_property
    def _backend(self) -> Backend:
        """Chosen by the first mark: most processes make none, and the compiled one is slow to import."""
        return self._choose_backend()

    def set_prices(self, prices: Mapping[str, object]) -> None:
        """Store the latest price of each symbol, quote per base. Raises: InvalidTrade naming the symbol."""
        self._store.set_prices({symbol: plain(price) for symbol, price in _checked(prices).items()})

    def mark_to_market(
        self, prices: Mapping[str, object] | None = None, *, at: object = None, rows: bool = False
    ) -> Marks:
        """Mark every open trade at `prices` (the stored ones when None), and keep each user's marks.

        Raises: InvalidTrade naming a symbol whose price is no positive number.
        """
        checked = _checked(self._store.prices() if prices is None else prices)
        at_us = self._now_us() if at is None else parse_time("at", at)
        with self._lock:
            self._refresh()
            marks = mark(self._book, checked, at_us, backend=self._backend, rows=rows)
            self._write(marks)
            self._store.write_mark_totals(_totals(marks))
        return marks

    def _write(self, marks: Marks) -> None:
        now = _by_user(marks)
        nothing = _user_marks(marks.at, {})
        gone = dict.fromkeys(self._marked - now.keys(), nothing)
        # Should the write fail half way, the next one still knows everybody whom it may have reached.
        self._marked |= now.keys()
        self._store.write_marks(now | gone)
        self._marked = set(now)

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks: `at` (µs) and `by_currency`; empty before the first.

        Raises: InvalidTrade when it is no user's id.
        """
        known_id("user_id", user_id)
        value = self._store.read_marks(user_id)
        return {} if value is None else msgspec.json.decode(value, type=dict[str, Any])

    def get_totals(self) -> dict[str, Any] | None:
        """What the last mark came to: `at` (µs), `totals` by currency, `missing`; None before the first."""
        value = self._store.read_mark_totals()
        return None if value is None else msgspec.json.decode(value, type=dict[str, Any])

    def _refresh(self) -> None:
        """Read the open trades of every shard that has changed since it was read last.

        The position is taken first: a commit after it only means one more read at the next mark.
        """
        for shard, position in enumerate(self._store.last_positions()):
            if self._positions.get(shard) != position:
                self._replace(shard, self._store.open_trades(shard))
                self._positions[shard] = position

    def _replace(self, shard: int, trades: Iterable[Trade]) -> None:
        self._reads += 1
        rows = [position_of(trade) for trade in trades if trade.open_amount]
        held = {row.trade_id for row in rows}
        self._book.remove(self._held.get(shard, set()) - held)
        self._book.upsert(rows, self._reads)
        self._held[shard] = held


def position_of(trade: Trade) -> Position:
    """The open part of `trade` as a row of the book; its cost includes the entry fees not yet matched."""
    is_long = trade.direction is Direction.LONG
    entry = CONTEXT.multiply(trade.open_cost, trade.contract_size)
    # An inverse long is worth minus its contracts over the price, a linear one plus its amount times it.
    is_positive = is_long != (trade.market is Market.INVERSE)
    return Position(
        trade_id=trade.trade_id,
        user_id=trade.user_id,
        currency=trade.settlement_currency,
        symbol=trade.symbol,
        market=trade.market.value,
        amount=trade.open_amount if is_long else CONTEXT.minus(trade.open_amount),
        cost=CONTEXT.add(entry if is_positive else CONTEXT.minus(entry), trade.open_fee),
        contract_size=trade.contract_size,
    )


def _checked(prices: Mapping[str, object]) -> dict[str, Decimal]:
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


def _totals(marks: Marks) -> bytes:
    totals = {currency: plain(total) for currency, total in marks.totals.items()}
    return msgspec.json.encode({"at": marks.at, "totals": totals, "missing": marks.missing})


def _by_user(marks: Marks) -> dict[str, bytes]:
    """Each user's marks as JSON: the time, and the figures of every currency."""
    users: dict[str, dict[str, Any]] = defaultdict(dict)
    for (user_id, currency), figures in marks.users.items():
        users[user_id][currency] = {
            "unrealised": plain(figures.unrealised),
            "profit": plain(figures.profit),
            "exposure": plain(figures.exposure),
            "winners": figures.winners,
            "count": figures.count,
        }
    return {user_id: _user_marks(marks.at, currencies) for user_id, currencies in users.items()}


def _user_marks(at: int, currencies: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"at": at, "by_currency": currencies})
