"""The trades a pool holds, the live tier and the archive as one: none missing and none twice while some move.

A trade is in the archive before it leaves the store. So whoever reads the live trades first and the
archive after them sees each at least once; a trade seen live is then skipped in the archive.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple, TypeGuard

import msgspec
import numpy as np

from tradepool.archive.columns import Stored, stored
from tradepool.archive.completeness import ArchivedTrades
from tradepool.archive.reading import Archive
from tradepool.batching import batched
from tradepool.errors import Misconfigured, UnknownTrade
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.trade import Trade
from tradepool.model.trade_filter import Cursor, TradeFilter
from tradepool.narrowing import Page, Part, cursor_after, place_of
from tradepool.store.indexes import IndexEntry, Window
from tradepool.store.redis_store import RedisStore

__all__ = ["Tiers"]

_CHUNK = 500
_WALKED_PER_WANTED = 8
"""Entries of an index that are read for each trade wanted, before the set of open trades is asked instead."""
_FEW_PER_WANTED = 4
"""Open trades of a user for each one wanted, up to which all of them are read at once."""
_DIGEST_BYTES = 16
_TRADE = codec.TRADE_KIND.encode()
_ARCHIVED = codec.ARCHIVED_KIND.encode()


class Tiers:
    """Reads trades wherever they are; archived ones where the archive is on this machine."""

    def __init__(self, store: RedisStore, archive: Archive) -> None:
        self._store = store
        self.archive = archive

    def find(self, left: Archived) -> Trade:
        """The trade that `left` stands for. Raises: UnknownTrade where there is no archive; Corrupt."""
        if not self.archive.is_here:
            raise UnknownTrade(
                f"archived under {left.day}, and there is no archive in {self.archive.folder.path}",
                field="trade_id",
                value=left.trade_id,
                cure="ask on the host of the files worker",
            )
        return self.archive.find(left).trade

    def page(self, wanted: TradeFilter, part: Part) -> Page:
        """The newest trades that are wanted: of one user, of one symbol, or else of all.

        Of all, live ones are known as far as the store's list of recent trades goes.
        """
        seen: set[str] = set()
        trades = self._live_page(wanted, part, seen)
        if not wanted.is_open and (moved := self._archived_page(trades, wanted, part, seen)):
            trades = sorted([*trades, *moved], key=place_of, reverse=True)[: part.limit]
        is_full = len(trades) == part.limit
        return Page(trades=trades, cursor=cursor_after(trades[-1]) if is_full else None)

    def live(self, *, whole: bool = False) -> Iterator[Stored]:
        """Every trade of the store once, in no order; memory holds the ids of one shard at a time.

        With `whole` the archive is looked at after the last of them. Raises: with `whole` Misconfigured when
        there are archived trades and no archive, Corrupt when it lacks some.
        """
        return (stored(value) for _, value in self._live_values(TradeFilter(), whole=whole))

    def stream(self, wanted: TradeFilter, *, whole: bool = False) -> Iterator[Stored]:
        """Every wanted trade once, in no order.

        Memory grows by 16 bytes for each live trade, with `whole` also by 8 for each archived one. Where the
        archive is missing or lacks trades, the others come, unless `whole` is asked for. Raises: as `live`.
        """
        whole = whole and not wanted.is_open
        seen = _Seen()
        if wanted.user_id is None:
            yield from self._live_of_all(wanted, seen, whole=whole)
        else:
            yield from self._live_of(wanted, seen)
            if whole:
                self._check_archived_of(wanted.user_id, wanted)
        if self.archive.is_here and not wanted.is_open:
            for chunk in batched(self.archive.stream(wanted), _CHUNK):
                yield from seen.others(chunk)

    def _live_of_all(self, wanted: TradeFilter, seen: _Seen, *, whole: bool) -> Iterator[Stored]:
        status = None if wanted.status is None else wanted.status.code.encode()
        for trade_id, value in self._live_values(wanted, whole=whole):
            seen.add(trade_id)
            # The header says the status: what has another one need not be decoded.
            if status in (None, value[codec.STATUS]):
                found = stored(value)
                if wanted.admits(found.trade):
                    yield found

    def _live_of(self, wanted: TradeFilter, seen: _Seen) -> Iterator[Stored]:
        assert wanted.user_id is not None
        shard = self._store.keys.shard_of_user(wanted.user_id)
        for value in self._store.read_all(shard, self._store.user_trade_ids(wanted.user_id)):
            if _is_trade(value):
                found = stored(value)
                seen.add(found.trade.trade_id)
                if wanted.admits(found.trade):
                    yield found

    def _live_values(self, wanted: TradeFilter, *, whole: bool) -> Iterator[tuple[str, bytes]]:
        """Every live trade; with `whole` the archive must have the others, as far back as they are wanted."""
        moved = ArchivedTrades()
        for shard in self._store.keys.shards:
            for record_id, value in self._store.scan_once(shard):
                if _is_trade(value):
                    yield record_id, value
                elif whole and value[codec.KIND] == _ARCHIVED:
                    self._note(moved, codec.unpack_archived(value))
        moved.check(self.archive, since=self.archive.first_day_of(wanted))

    def _check_archived_of(self, user_id: str, wanted: TradeFilter) -> None:
        """The archive must have the user's trades; what is left of them in the shard stands among others'."""
        if not self._store.archived_counters(user_id):
            return
        moved = ArchivedTrades()
        for _, value in self._store.scan_once(self._store.keys.shard_of_user(user_id)):
            if value[codec.KIND] == _ARCHIVED and (left := codec.unpack_archived(value)).user_id == user_id:
                self._note(moved, left)
        moved.check(self.archive, since=self.archive.first_day_of(wanted))

    def _note(self, moved: ArchivedTrades, left: Archived) -> None:
        if not self.archive.is_here:
            raise Misconfigured(
                f"some trades are archived, and there is no archive in {self.archive.folder.path}; do this "
                "on the host of the files worker, with its TRADEPOOL_DATA_DIR"
            )
        moved.note(left)

    def _live_page(self, wanted: TradeFilter, part: Part, seen: set[str]) -> list[Trade]:
        """Walk an index from the part's beginning until enough trades are admitted, or it ends.

        `seen` gets the ids of all that were read: the archive may have one as it was when it was admitted.
        """
        index = self._index_of(wanted, part.limit)
        if index.has_open and self._has_few_open(wanted.user_id, part.limit):
            return self._open_behind(part.after, wanted, part.limit)
        trades: list[Trade] = []
        after, chunk, walked = part.after, part.limit, 0
        while True:
            entries = index.entries_of(Window(chunk, since=wanted.since, until=wanted.until, cursor=after))
            found = self._read(entries)
            seen.update(trade.trade_id for trade in found)
            trades += found if index.admits_all else filter(wanted.admits, found)
            if len(trades) >= part.limit or len(entries) < chunk:
                return trades[: part.limit]
            after, chunk, walked = entries[-1].cursor, _CHUNK, walked + chunk
            if index.has_open and walked >= max(_CHUNK, _WALKED_PER_WANTED * part.limit):
                return [*trades, *self._open_behind(after, wanted, part.limit - len(trades))]

    def _index_of(self, wanted: TradeFilter, limit: int) -> _Index:
        names = wanted.values.keys()
        if wanted.user_id is not None:
            of_user = partial(self._store.user_page, wanted.user_id)
            return _Index(of_user, admits_all=names <= {"user_id"}, has_open=wanted.is_open)
        if wanted.symbol is not None:
            return _Index(partial(self._store.symbol_page, wanted.symbol), admits_all=names <= {"symbol"})
        recent = self._store.recent_ids(limit)
        return _Index(lambda window: [] if window.cursor else recent, admits_all=wanted == TradeFilter())

    def _has_few_open(self, user_id: str | None, limit: int) -> bool:
        assert user_id is not None
        few = _FEW_PER_WANTED * limit
        return sum(1 for _ in islice(self._store.open_ids_of_user(user_id), few + 1)) <= few

    def _open_behind(self, after: Cursor | None, wanted: TradeFilter, limit: int) -> list[Trade]:
        """The newest of a user's open trades that stand behind a place."""
        assert wanted.user_id is not None
        opened = self._store.open_trades_of_user(wanted.user_id)
        admitted = filter(wanted.admits, opened)
        behind = (trade for trade in admitted if after is None or place_of(trade) < after)
        return heapq.nlargest(limit, behind, key=place_of)

    def _read(self, entries: list[IndexEntry]) -> list[Trade]:
        """The trades of an index that are still live, in order."""
        values = self._store.read([(entry.shard, entry.trade_id) for entry in entries])
        return [codec.unpack_trade(value) for value in values if _is_trade(value)]

    def _archived_page(
        self, trades: list[Trade], wanted: TradeFilter, part: Part, seen: set[str]
    ) -> list[Trade]:
        """Archived trades among which are all that belong on the page of these live ones.

        Rows of trades that were `seen` live do not count, and more are read in their place. Time and id of
        a trade do not change: what was not read as live stands behind the page.
        """
        if len(trades) == part.limit:
            since = max(trades[-1].created_at, wanted.since or 0)
            wanted = msgspec.structs.replace(wanted, since=since)
        if not self._may_be_archived(wanted):
            return []
        limit = part.limit
        while True:
            found = self.archive.page(wanted, limit, part.after)
            moved = [item.trade for item in found if item.trade.trade_id not in seen]
            if len(found) < limit or len(moved) >= part.limit:
                return moved
            limit += len(found) - len(moved)

    def _may_be_archived(self, wanted: TradeFilter) -> bool:
        """Whether a day is there that is late enough, and the user has archived trades at all."""
        if not self.archive.has_days_of(wanted):
            return False
        return wanted.user_id is None or bool(self._store.archived_counters(wanted.user_id))


class _Index(NamedTuple):
    """A list of trades by time; whether all in it are wanted, and whether the open ones can be had apart."""

    entries_of: Callable[[Window], list[IndexEntry]]
    admits_all: bool
    has_open: bool = False


class _Seen:
    """A set of trade ids in 16 bytes each, filled first and asked afterwards."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._sorted: np.ndarray[tuple[int], np.dtype[np.bytes_]] | None = None

    def add(self, trade_id: str) -> None:
        self._digests += _digest(trade_id)

    def others(self, found: list[Stored]) -> Iterator[Stored]:
        """Those of `found` that were not added."""
        if self._sorted is None:
            self._sorted = np.sort(np.frombuffer(bytes(self._digests), dtype=f"S{_DIGEST_BYTES}"))
        asked = np.array([_digest(item.trade.trade_id) for item in found], dtype=self._sorted.dtype)
        places = np.searchsorted(self._sorted, asked)
        for item, digest, place in zip(found, asked, places, strict=True):
            if place == len(self._sorted) or self._sorted[place] != digest:
                yield item


def _digest(trade_id: str) -> bytes:
    return blake2b(trade_id.encode(), digest_size=_DIGEST_BYTES).digest()


def _is_trade(value: bytes | None) -> TypeGuard[bytes]:
    """Whether a stored value is there and still a trade's."""
    return value is not None and value[codec.KIND] == _TRADE
