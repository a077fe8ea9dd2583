"""Trade ids from the indexes: pages in order of time, open trades, users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from redis.client import Pipeline
from redis.cluster import ClusterPipeline

from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

__all__ = ["Cursor", "IndexEntry", "Indexes", "Window"]

Cursor = tuple[int, str]
"""The place of a trade in an index by time: (created_at in µs, trade id)."""

_CHUNK_MIN = 16
_PAGE = 1000
_AFTER_SEPARATOR = "\x20"
"""The character after 0x1f: ends the range of one user's open trades."""


class IndexEntry(NamedTuple):
    """One trade in an index; `shard` and `trade_id` are what `RedisStore.read` asks for."""

    created_at: int
    trade_id: str
    shard: int

    @property
    def cursor(self) -> Cursor:
        """Where the next page begins."""
        return (self.created_at, self.trade_id)


class Window(NamedTuple):
    """Which part of an index by time to return, and in which direction.

    `since` ≤ created_at < `until`, µs; from `cursor` on, without it. Equal times are ordered by trade id.
    """

    limit: int
    newest_first: bool = True
    since: int | None = None
    until: int | None = None
    cursor: Cursor | None = None


class Indexes:
    """The part of the store that finds trades. All methods raise StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def user_page(self, user_id: str, window: Window) -> list[IndexEntry]:
        """A page of the user's trades."""
        shard = self.keys.shard_of_user(user_id)
        return self._page([(shard, self.keys.user_index(shard, user_id))], window)

    def symbol_page(self, symbol: str, window: Window) -> list[IndexEntry]:
        """A page of the symbol's trades over all users."""
        return self._page(
            [(shard, self.keys.symbol_index(shard, symbol)) for shard in self.keys.shards], window
        )

    def recent_ids(self, limit: int) -> list[IndexEntry]:
        """The `limit` newest trades of all users, newest first; `recent_max` per shard are kept."""
        return self._page([(shard, self.keys.recent(shard)) for shard in self.keys.shards], Window(limit))

    def user_trade_ids(self, user_id: str) -> Iterator[str]:
        """Every trade id of the user, oldest first, a page at a time."""
        cursor = None
        while page := self.user_page(user_id, Window(_PAGE, newest_first=False, cursor=cursor)):
            yield from (entry.trade_id for entry in page)
            cursor = page[-1].cursor

    def open_ids(self, shard: int) -> Iterator[str]:
        """The id of each open trade of the shard, in order of user, a page at a time."""
        return self._open_ids(shard, "-", "+")

    def open_ids_of_user(self, user_id: str) -> Iterator[str]:
        """The id of each open trade of the user, a page at a time."""
        prefix = self.keys.open_member(user_id, "")
        last = f"({prefix[:-1]}{_AFTER_SEPARATOR}"
        return self._open_ids(self.keys.shard_of_user(user_id), f"[{prefix}", last)

    def due_ledgers(self, shard: int, now_us: int, limit: int) -> list[str]:
        """Record ids of the shard's ledgers with a reservation that has expired by `now_us`, µs.

        The `limit` with the oldest ones, oldest first. A score is a double: after the year 2255 one may
        come a few µs early.
        """
        with translated():
            found = self._client.zrange(
                self.keys.expiries(shard), "-inf", now_us, byscore=True, offset=0, num=limit
            )
        return [text_of(record_id) for record_id in cast("list[bytes]", found)]

    def expiries(self, shard: int) -> dict[str, int]:
        """Every ledger of the shard with an open reservation, by record id: when the first expires, µs."""
        with translated():
            found = self._client.zrange(self.keys.expiries(shard), 0, -1, withscores=True)
        return {text_of(record_id): int(at) for record_id, at in cast("list[tuple[bytes, float]]", found)}

    def users(self, shard: int) -> Iterator[str]:
        """Every user of the shard that has a record; one may come twice while users are being added."""
        cursor = 0
        while True:
            with translated():
                cursor, found = self._client.sscan(self.keys.users(shard), cursor, count=_PAGE)
            yield from (text_of(user_id) for user_id in found)
            if cursor == 0:
                return

    def _open_ids(self, shard: int, first: str, last: str) -> Iterator[str]:
        key = self.keys.open_trades(shard)
        while True:
            with translated():
                found = self._client.zrange(key, first, last, bylex=True, offset=0, num=_PAGE)
            members = [text_of(member) for member in cast("list[bytes]", found)]
            yield from (self.keys.trade_of_open_member(member) for member in members)
            if len(members) < _PAGE:
                return
            first = f"({members[-1]}"

    def _page(self, indexes: Iterable[tuple[int, str]], window: Window) -> list[IndexEntry]:
        """The window's first `limit` entries of the merged indexes.

        Reads a little of each index, then more of those that may still have entries before the last
        one on the page.
        """
        walks = [_Walk(shard, key, window) for shard, key in indexes]
        chunk = window.limit // len(walks) + _CHUNK_MIN
        page: list[IndexEntry] = []
        while wanted := [walk for walk in walks if walk.may_add_to(page)]:
            with translated():
                pipeline = self._client.pipeline(transaction=False)
                for walk in wanted:
                    walk.ask(pipeline, chunk)
                for walk, found in zip(wanted, pipeline.execute(), strict=True):
                    walk.take(found, chunk)
            entries = [entry for walk in walks for entry in walk.entries]
            page = sorted(entries, reverse=window.newest_first)[: window.limit]
            chunk *= 2
        return page


class _Walk:
    """Reads one index in one direction, chunk by chunk, however many trades share one time."""

    def __init__(self, shard: int, key: str, window: Window) -> None:
        self._shard = shard
        self._key = key
        self._window = window
        self._since: int | str = "-inf" if window.since is None else window.since
        self._until: int | str = "+inf" if window.until is None else f"({window.until}"
        self._skip = 0
        """Entries read already at the time where the next chunk begins."""
        self._is_done = window.limit <= 0
        self._last: Cursor | None = None
        self.entries: list[IndexEntry] = []
        if window.cursor is not None:
            self._begin_at(window.cursor[0])

    def may_add_to(self, page: list[IndexEntry]) -> bool:
        if self._is_done:
            return False
        if len(page) < self._window.limit or self._last is None:
            return True
        return _is_before(self._last, page[-1].cursor, newest_first=self._window.newest_first)

    def ask(self, pipeline: Pipeline | ClusterPipeline, chunk: int) -> None:
        newest_first = self._window.newest_first
        first, last = (self._until, self._since) if newest_first else (self._since, self._until)
        pipeline.zrange(
            self._key,
            first,
            last,
            desc=newest_first,
            byscore=True,
            offset=self._skip,
            num=chunk,
            withscores=True,
            score_cast_func=int,
        )

    def take(self, found: list[tuple[bytes, int]], chunk: int) -> None:
        if found:
            time = found[-1][1]
            ties = sum(1 for _, at in found if at == time)
            self._skip = ties + (self._skip if ties == len(found) and self._is_at(time) else 0)
            self._begin_at(time)
            self._last = (time, text_of(found[-1][0]))
        self._is_done = len(found) < chunk
        new = (IndexEntry(at, text_of(member), self._shard) for member, at in found)
        cursor, newest_first = self._window.cursor, self._window.newest_first
        self.entries += (
            entry
            for entry in new
            if cursor is None or _is_before(cursor, entry.cursor, newest_first=newest_first)
        )

    def _begin_at(self, time: int) -> None:
        """Continue with `time`, unless the window begins later."""
        if self._window.newest_first:
            if self._window.until is None or time < self._window.until:
                self._until = time
        elif self._window.since is None or time > self._window.since:
            self._since = time

    def _is_at(self, time: int) -> bool:
        return time == (self._until if self._window.newest_first else self._since)


def _is_before(one: Cursor, other: Cursor, *, newest_first: bool) -> bool:
    return one > other if newest_first else one < other
