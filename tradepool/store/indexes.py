"""Trade ids from the indexes: pages in order of time, open trades, users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple, cast

from tradepool.model.trade_filter import Cursor
from tradepool.store.asking import Command, ask_all
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

__all__ = ["IndexEntry", "Indexes", "Window"]

_CHUNK_MIN = 4
_SHARES = 2
"""How much more than its even share of a page is read of an index at first: few pages take a second look."""
_PAGE = 1000
_AFTER_SEPARATOR = "\x20"
"""The character after 0x1f: ends the range of one user's open trades."""
_entry = tuple.__new__
"""A third of the time of naming the fields, fifty times a page."""


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
        shard = self.keys.shard_of_user(user_id)
        walk = _Walk(self.keys.user_index(shard, user_id), Window(_PAGE, newest_first=False))
        while not walk.is_done:
            yield from (trade_id for _, trade_id in self._step([walk], _PAGE)[0])

    def open_ids(self, shard: int) -> Iterator[str]:
        """The id of each open trade of the shard, in order of user, a page at a time."""
        return self._open_ids(shard, "-", "+")

    def open_ids_of_user(self, user_id: str) -> Iterator[str]:
        """The id of each open trade of the user, a page at a time."""
        prefix = self.keys.open_member(user_id, "")
        last = f"({prefix[:-1]}{_AFTER_SEPARATOR}"
        return self._open_ids(self.keys.shard_of_user(user_id), f"[{prefix}", last)

    def open_counts(self) -> list[int]:
        """How many trades of each shard are open."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard in self.keys.shards:
                pipeline.zcard(self.keys.open_trades(shard))
            return [int(count) for count in pipeline.execute()]

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

    def quarantined(self, limit: int) -> list[IndexEntry]:
        """The newest `limit` trades in quarantine of all shards, newest first."""
        indexes = [(shard, self.keys.quarantined(shard)) for shard in self.keys.shards]
        return self._page(indexes, Window(limit))

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
        walks = {_Walk(key, window): shard for shard, key in indexes}
        chunk = min(_SHARES * (window.limit // len(walks)), window.limit) + _CHUNK_MIN
        found: list[IndexEntry] = []
        page: list[IndexEntry] = []
        while wanted := [walk for walk in walks if walk.may_add_to(page)]:
            for walk, cursors in zip(wanted, self._step(wanted, chunk), strict=True):
                shard = walks[walk]
                found += [_entry(IndexEntry, (at, trade_id, shard)) for at, trade_id in cursors]
            if len(walks) > 1:
                found.sort(reverse=window.newest_first)
            page = found[: window.limit]
            chunk *= 2
        return page

    def _step(self, walks: Sequence[_Walk], chunk: int) -> list[list[Cursor]]:
        """What comes next on each of the walks, about `chunk` entries of each, in one round trip."""
        with translated():
            answers = ask_all(self._client, [walk.question(chunk) for walk in walks])
        return [walk.taken(found) for walk, found in zip(walks, answers, strict=True)]


class _Walk:
    """Reads one index in one direction, chunk by chunk, however many trades share one time.

    A chunk begins with the last entry of the one before. Is another one in that place, then some came or
    went that share its time, and all of that time are read again from the first on.
    """

    def __init__(self, key: str, window: Window) -> None:
        self._key = key
        self._window = window
        self._since: int | str = "-inf" if window.since is None else window.since
        self._until: int | str = "+inf" if window.until is None else f"({window.until}"
        self._skip = 0
        """Entries of the time where the next chunk begins that stand before the chunk."""
        self._first: bytes | str | None = None
        """What the next chunk should begin with if it skips anything."""
        self._asked = 0
        self._widened = 1
        """Doubled whenever a time is read again, so that its entries fit into one chunk in the end."""
        self._behind = window.cursor
        """Entries up to this one have been returned, or are not wanted."""
        self._last: Cursor | None = None
        self.is_done = window.limit <= 0
        if window.cursor is not None:
            self._begin_at(window.cursor[0])

    def may_add_to(self, page: Sequence[IndexEntry]) -> bool:
        if self.is_done:
            return False
        if len(page) < self._window.limit or self._last is None:
            return True
        return self._is_before(self._last, page[-1].cursor)

    def question(self, chunk: int) -> Command:
        self._asked = chunk * self._widened + 1
        limit = ("LIMIT", self._skip, self._asked, "WITHSCORES")
        if self._window.newest_first:
            return ("ZRANGE", self._key, self._until, self._since, "BYSCORE", "REV", *limit)
        return ("ZRANGE", self._key, self._since, self._until, "BYSCORE", *limit)

    def taken(self, answer: Sequence[bytes | str]) -> list[Cursor]:
        """The entries in an answer to `question` that come behind those which were taken before."""
        members = answer[::2]
        if self._skip and (not members or members[0] != self._first):
            self._skip, self._widened = 0, self._widened * 2
            return []
        self.is_done = len(members) < self._asked
        if not members:
            return []
        found = [
            (int(float(score)), text_of(member)) for member, score in zip(members, answer[1::2], strict=True)
        ]
        self._go_on_behind(found, members[-1])
        new = self._new_in(found)
        if new:
            self._behind = new[-1]
        return new

    def _go_on_behind(self, found: Sequence[Cursor], last_member: bytes | str) -> None:
        """The next chunk begins with the last one found."""
        time = found[-1][0]
        before = sum(1 for _ in takewhile(lambda entry: entry[0] == time, reversed(found))) - 1
        is_all_one_time = before + 1 == len(found) and self._is_at(time)
        self._skip = before + (self._skip if is_all_one_time else 0)
        self._first, self._last = last_member, found[-1]
        self._begin_at(time)

    def _new_in(self, found: list[Cursor]) -> list[Cursor]:
        behind = self._behind
        if behind is None:
            return found
        old = sum(1 for _ in takewhile(lambda entry: not self._is_before(behind, entry), found))
        return found[old:]

    def _begin_at(self, time: int) -> None:
        """Continue with `time`, unless the window begins later."""
        if self._window.newest_first:
            if self._window.until is None or time < self._window.until:
                self._until = time
        elif self._window.since is None or time > self._window.since:
            self._since = time

    def _is_at(self, time: int) -> bool:
        return time == (self._until if self._window.newest_first else self._since)

    def _is_before(self, one: Cursor, other: Cursor) -> bool:
        return one > other if self._window.newest_first else one < other
