"""The trades a pool holds, live and archived as one: none missing and none twice while some move over.

A trade is in the archive before it leaves the store. So whoever reads the live trades first and the
archive after them sees each at least once; a trade seen live is then skipped in the archive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import TypeGuard

import numpy as np

from tradepool.archive.columns import Stored, stored
from tradepool.archive.reading import Archive, Wanted
from tradepool.batching import batched
from tradepool.errors import Misconfigured, UnknownTrade
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.trade import Trade
from tradepool.narrowing import Narrowing, Page, cursor_after, place_of
from tradepool.store.indexes import IndexEntry, Window
from tradepool.store.redis_store import RedisStore

__all__ = ["Holdings"]

_CHUNK = 500
_DIGEST_BYTES = 16


class Holdings:
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

    def page(
        self, entries_of: Callable[[Window], list[IndexEntry]], narrowing: Narrowing, wanted: Wanted
    ) -> Page:
        """The newest trades that `narrowing` admits, of an index and of what the archive has of it."""
        live: set[str] = set()
        trades = self._live_page(entries_of, narrowing, live)
        if self.archive.is_here:
            trades += self._archived_page(trades, narrowing, wanted, live)
            trades = sorted(trades, key=place_of, reverse=True)[: narrowing.limit]
        is_full = len(trades) == narrowing.limit
        return Page(trades=trades, cursor=cursor_after(trades[-1]) if is_full else None)

    def live(self, *, whole: bool = False) -> Iterator[Stored]:
        """Every trade of the store once, in no order; memory holds the ids of one shard at a time.

        Raises: with `whole` Misconfigured when there are archived trades and no archive.
        """
        is_short = whole and not self.archive.is_here
        for shard in self._store.keys.shards:
            for _, value in self._store.scan_once(shard):
                kind = codec.read_header(value).kind
                if kind == codec.TRADE_KIND:
                    yield stored(value)
                elif kind == codec.ARCHIVED_KIND and is_short:
                    raise _archive_missing(self.archive)

    def stream(
        self, narrowing: Narrowing, user_id: str | None = None, *, whole: bool = False
    ) -> Iterator[Stored]:
        """Every trade (of a user) that `narrowing` admits once, in no order.

        Memory grows by 16 bytes for each live trade. Where there is no archive, only the live ones come,
        unless `whole` is asked for. Raises: as `live`.
        """
        seen = _Seen()
        for found in self.live(whole=whole) if user_id is None else self._live_of(user_id):
            seen.add(found.trade.trade_id)
            if narrowing.admits(found.trade):
                yield found
        if not self.archive.is_here:
            if whole and user_id is not None and self._store.archived_counters(user_id):
                raise _archive_missing(self.archive)
            return
        archived = self.archive.stream(_wanted(narrowing, Wanted(user_id=user_id)))
        for chunk in batched(archived, _CHUNK):
            yield from seen.others(chunk)

    def _live_of(self, user_id: str) -> Iterator[Stored]:
        shard = self._store.keys.shard_of_user(user_id)
        values = self._store.read_all(shard, self._store.user_trade_ids(user_id))
        return (stored(value) for value in values if _is_trade(value))

    def _live_page(
        self, entries_of: Callable[[Window], list[IndexEntry]], narrowing: Narrowing, live: set[str]
    ) -> list[Trade]:
        """Walk the index from the cursor on until enough trades are admitted, or it ends.

        `live` gets the ids of all that were read: the archive may have one as it was when it was admitted.
        """
        trades: list[Trade] = []
        after = narrowing.after
        while True:
            wanted = narrowing.limit - len(trades)
            chunk = wanted if narrowing.admits_all else max(wanted, _CHUNK)
            entries = entries_of(Window(chunk, since=narrowing.since, until=narrowing.until, cursor=after))
            for trade in self.read(entries):
                live.add(trade.trade_id)
                if narrowing.admits(trade):
                    trades.append(trade)
            if len(trades) >= narrowing.limit or len(entries) < chunk:
                return trades[: narrowing.limit]
            after = entries[-1].cursor

    def read(self, entries: list[IndexEntry]) -> list[Trade]:
        """The trades of an index that are still live, in order."""
        values = self._store.read([(entry.shard, entry.trade_id) for entry in entries])
        return [codec.unpack_trade(value) for value in values if _is_trade(value)]

    def _archived_page(
        self, trades: list[Trade], narrowing: Narrowing, wanted: Wanted, live: set[str]
    ) -> list[Trade]:
        """Archived trades among which are all that belong on the page of these live ones.

        Rows of trades that are `live` do not count, and more are read in their place. Time and id of a
        trade do not change: what was not read as live stands behind the page.
        """
        wanted = _wanted(narrowing, wanted)
        if len(trades) == narrowing.limit:
            wanted = wanted._replace(since=max(trades[-1].created_at, wanted.since or 0))
        limit = narrowing.limit
        while True:
            found = self.archive.page(wanted, limit)
            moved = [item.trade for item in found if item.trade.trade_id not in live]
            if len(found) < limit or len(moved) >= narrowing.limit:
                return moved
            limit += len(found) - len(moved)


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


def _wanted(narrowing: Narrowing, wanted: Wanted) -> Wanted:
    return wanted._replace(
        source=narrowing.source,
        status=narrowing.status,
        since=narrowing.since,
        until=narrowing.until,
        after=narrowing.after,
    )


def _is_trade(value: bytes | None) -> TypeGuard[bytes]:
    """Whether a stored value is there and still a trade's."""
    return value is not None and codec.read_header(value).kind == codec.TRADE_KIND


def _archive_missing(archive: Archive) -> Misconfigured:
    return Misconfigured(
        f"some trades are archived, and there is no archive in {archive.folder.path}; do this on the host of "
        "the files worker, with its TRADEPOOL_DATA_DIR"
    )
