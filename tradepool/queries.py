"""The read side (the old trade_pool_queries): trades by id, user, symbol and time; summaries; history.

Lists are newest first by creation time and id. A cursor is the last trade's time and id, so that a
page neither skips nor repeats a trade while others are being added.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from tradepool.errors import InvalidTrade, UnknownTrade
from tradepool.files.reading import read_history
from tradepool.model import codec
from tradepool.model.codec import unpack_trade
from tradepool.model.summary import Summary, summarise
from tradepool.model.times import parse_time
from tradepool.model.trade import Source, Status, Trade
from tradepool.placing import known_id
from tradepool.store.indexes import Cursor, IndexEntry, Window
from tradepool.store.redis_store import RedisStore
from tradepool.store.user_cache import UserCache

__all__ = ["LIMIT_MAX", "Narrowing", "Page", "TradeQueries", "narrow"]

LIMIT_MAX = 10_000
"""Trades in one page at most."""
_CHUNK = 500

_Choice = TypeVar("_Choice", Source, Status)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some trades, newest first, and the cursor of the page after it (None at the end)."""

    trades: list[Trade]
    cursor: str | None = None


class Narrowing(msgspec.Struct, frozen=True, kw_only=True):
    """Which trades a page wants, checked: `since` is included, `until` is not (µs)."""

    source: Source | None = None
    status: Status | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 1000
    after: Cursor | None = None

    @property
    def admits_all(self) -> bool:
        """Whether every trade of the index is wanted."""
        return self.source is None and self.status is None

    def admits(self, trade: Trade) -> bool:
        """Whether source and status are the wanted ones; times are the index's business."""
        return self.source in (None, trade.source) and self.status in (None, trade.status)


def narrow(
    *, source: str | None, status: str | None, since: object, until: object, limit: int, cursor: str | None
) -> Narrowing:
    """Check the arguments of a list query. Raises: InvalidTrade naming the wrong one."""
    return Narrowing(
        source=_choice("source", source, Source),
        status=_choice("status", status, Status),
        since=None if since is None else parse_time("since", since),
        until=None if until is None else parse_time("until", until),
        limit=_checked_limit(limit),
        after=None if cursor is None else _parse_cursor(cursor),
    )


class TradeQueries:
    """Reads trades from Redis, their history from the journal."""

    def __init__(self, store: RedisStore, journal: Path, summaries: UserCache[Summary]) -> None:
        self._store = store
        self._journal = journal
        self._summaries = summaries

    def get_trade(self, trade_id: str, *, as_of: object = None) -> Trade:
        """The trade now, or its newest version up to `as_of`. Raises: UnknownTrade, InvalidTrade."""
        known_id("trade_id", trade_id)
        if as_of is not None:
            return self._as_of(trade_id, parse_time("as_of", as_of))
        shard = self._store.shard_of_trade(trade_id)
        value = None if shard is None else self._store.read([(shard, trade_id)])[0]
        if value is None:
            raise _unknown(trade_id)
        return unpack_trade(value)

    def get_trade_history(self, trade_id: str) -> list[Trade]:
        """Every journaled version, oldest first. Raises: UnknownTrade."""
        known_id("trade_id", trade_id)
        history = [codec.decode_trade(bytes(line.record)) for line in read_history(self._journal, trade_id)]
        if not history:
            raise _unknown(trade_id)
        return history

    def _as_of(self, trade_id: str, as_of: int) -> Trade:
        known = [trade for trade in self.get_trade_history(trade_id) if trade.updated_at <= as_of]
        if not known:
            raise _unknown(trade_id)
        return known[-1]

    def get_all_trades(self, source: str | None = None) -> Iterator[Trade]:
        """Every trade of the store once, streamed, in no particular order. Raises: InvalidTrade."""
        wanted = Narrowing(source=_choice("source", source, Source))
        for shard in range(self._store.keys.shard_count):
            seen: set[str] = set()
            for trade_id, value in self._store.scan_records(shard, codec.TRADE_KIND):
                if trade_id not in seen and wanted.admits(trade := unpack_trade(value)):
                    yield trade
                seen.add(trade_id)

    def get_trades_by_user(self, user_id: str, narrowing: Narrowing) -> Page:
        """A page of the user's trades."""
        known_id("user_id", user_id)
        return self._page(lambda window: self._store.user_page(user_id, window), narrowing)

    def get_trades_by_symbol(self, symbol: str, narrowing: Narrowing) -> Page:
        """A page of the symbol's trades over all users."""
        known_id("symbol", symbol)
        return self._page(lambda window: self._store.symbol_page(symbol, window), narrowing)

    def get_recent_trades(self, limit: int = 1000, user_id: str | None = None) -> list[Trade]:
        """The newest trades of one user or of all."""
        narrowing = Narrowing(limit=_checked_limit(limit))
        if user_id is not None:
            return self.get_trades_by_user(user_id, narrowing).trades
        return self._read(self._store.recent_ids(narrowing.limit))

    def get_open_trades(self, user_id: str | None = None) -> Iterator[Trade]:
        """Open trades of one user or of all, streamed."""
        if user_id is not None:
            known_id("user_id", user_id)
            yield from self._store.open_trades_of_user(user_id)
            return
        for shard in range(self._store.keys.shard_count):
            yield from self._store.open_trades(shard)

    def get_user_summary(
        self, user_id: str, *, source: str | None = None, currency: str | None = None
    ) -> Summary:
        """The user's figures, computed once per change of his trades. Raises: InvalidTrade."""
        known_id("user_id", user_id)
        return self._summaries.get(
            user_id,
            (source, currency),
            lambda: summarise(self._trades_of(user_id), user_id=user_id, source=source, currency=currency),
        )

    def _trades_of(self, user_id: str) -> Iterator[Trade]:
        narrowing = Narrowing(limit=_CHUNK)
        while True:
            page = self.get_trades_by_user(user_id, narrowing)
            yield from page.trades
            if page.cursor is None:
                return
            narrowing = Narrowing(limit=_CHUNK, after=_parse_cursor(page.cursor))

    def _page(self, entries_of: Callable[[Window], list[IndexEntry]], narrowing: Narrowing) -> Page:
        """Walk the index from the cursor on until enough trades are admitted, or it ends."""
        trades: list[Trade] = []
        after = narrowing.after
        while True:
            wanted = narrowing.limit - len(trades)
            chunk = wanted if narrowing.admits_all else max(wanted, _CHUNK)
            entries = entries_of(Window(chunk, since=narrowing.since, until=narrowing.until, cursor=after))
            for trade in self._read(entries):
                if narrowing.admits(trade):
                    trades.append(trade)
                    if len(trades) == narrowing.limit:
                        return Page(trades=trades, cursor=_cursor((trade.created_at, trade.trade_id)))
            if len(entries) < chunk:
                return Page(trades=trades)
            after = entries[-1].cursor

    def _read(self, entries: list[IndexEntry]) -> list[Trade]:
        values = self._store.read([(entry.shard, entry.trade_id) for entry in entries])
        return [unpack_trade(value) for value in values if value is not None]


def _unknown(trade_id: object) -> UnknownTrade:
    return UnknownTrade("no such trade", field="trade_id", value=trade_id, cure="check the id")


def _choice(field: str, value: str | None, kind: type[_Choice]) -> _Choice | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(kind)
        raise InvalidTrade("not a choice", field=field, value=value, cure=f"one of {choices}") from None


def _checked_limit(limit: object) -> int:
    if isinstance(limit, int) and 0 < limit <= LIMIT_MAX:
        return limit
    raise InvalidTrade("out of range", field="limit", value=limit, cure=f"give 1 to {LIMIT_MAX}")


def _cursor(place: Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _parse_cursor(text: object) -> Cursor:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(str(text)), type=tuple[int, str])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise InvalidTrade(
            "not a cursor", field="cursor", value=text, cure="give the one of the page before"
        ) from None
