"""The read side (the old trade_pool_queries): trades by id, user, symbol, time and more; summaries; history.

Lists are newest first by creation time and id; archived trades stand in them where the archive is on
this machine.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tradepool.archive.querying import ROWS_MAX, QueryResult, run_query
from tradepool.errors import Fenced, StoreUnavailable, TradePoolError, UnknownTrade
from tradepool.exporters import choose_format, write_export
from tradepool.files.history import read_history
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.ids import minted_at
from tradepool.model.summary import Summary
from tradepool.model.times import iso_time, parse_time
from tradepool.model.trade import Trade
from tradepool.model.trade_filter import TradeFilter
from tradepool.narrowing import LIMIT_MAX, Page, Part, place_of
from tradepool.placing import known_id
from tradepool.store.redis_store import RedisStore
from tradepool.summaries import Summaries
from tradepool.tiers import Tiers

__all__ = ["TradeQueries"]


class TradeQueries:
    """Reads trades from Redis and the archive, their history from the journal."""

    def __init__(self, store: RedisStore, journal: Path, tiers: Tiers, summaries: Summaries) -> None:
        self._store = store
        self._journal = journal
        self._tiers = tiers
        self._summaries = summaries

    def get_trade(self, trade_id: str, *, as_of: object = None) -> Trade:
        """The trade now, or its newest version of up to `as_of`.

        Raises: InvalidTrade; UnknownTrade, also for an archived trade where there is no archive; Corrupt
        when the archive has lost it; else as `Archive` for an archived trade.
        """
        known_id("trade_id", trade_id)
        if as_of is not None:
            return self._as_of(trade_id, parse_time("as_of", as_of))
        record = self._record(trade_id)
        if isinstance(record, Archived):
            return self._tiers.find(record)
        if not isinstance(record, Trade):
            raise _unknown(trade_id)
        return record

    def get_trade_history(self, trade_id: str) -> list[Trade]:
        """Every journaled version, oldest first, also of an archived trade. Raises: UnknownTrade."""
        known_id("trade_id", trade_id)
        newest, times = self._hints(trade_id)
        lines = read_history(self._journal, trade_id, newest=newest, times=times)
        history = [codec.decode_trade(bytes(line.record)) for line in lines if line.kind == codec.TRADE_KIND]
        if not history:
            raise _unknown(trade_id)
        return history

    def _as_of(self, trade_id: str, as_of: int) -> Trade:
        """`updated_at` never goes back from one version to the next."""
        history = self.get_trade_history(trade_id)
        known = bisect_right(history, as_of, key=lambda trade: trade.updated_at)
        if known == 0:
            first = iso_time(history[0].updated_at)
            raise UnknownTrade(
                "not known yet at that time",
                field="trade_id",
                value=trade_id,
                cure=f"ask for {first} or later",
            )
        return history[known - 1]

    def _hints(self, trade_id: str) -> tuple[int | None, list[int]]:
        """A version that the journal should have of the trade, and when it changed, as far as is known."""
        minted = minted_at(trade_id)
        times = [] if minted is None else [minted]
        try:
            record = self._record(trade_id)
        except StoreUnavailable:
            # The journal is there without its server.
            return None, times
        if isinstance(record, Trade):
            return record.version, times + _times_of(record)
        if not isinstance(record, Archived):
            if self._is_unknown(trade_id):
                raise _unknown(trade_id)
            return None, times
        with suppress(TradePoolError):
            times += _times_of(self._tiers.find(record))
        # What was journaled last only says that it was archived.
        return record.version - 1, times

    def _is_unknown(self, trade_id: str) -> bool:
        """Whether a server that has all that the journal has lacks the trade."""
        try:
            generation = self._store.generation()
            return self._record(trade_id) is None and self._store.generation() == generation
        except (Fenced, StoreUnavailable):
            return False

    def _record(self, trade_id: str) -> codec.Record | None:
        shard = self._store.shard_of_trade(trade_id)
        value = None if shard is None else self._store.read([(shard, trade_id)])[0]
        return None if value is None else codec.unpack(value)

    def get_all_trades(self, wanted: TradeFilter) -> Iterator[Trade]:
        """Every wanted trade once, streamed, in no particular order; the live ones where there is no archive.

        Raises: InvalidTrade; with an archive as `Archive`.
        """
        return (found.trade for found in self._tiers.stream(wanted))

    def get_trades(self, wanted: TradeFilter, part: Part) -> Page:
        """A page of a user's or a symbol's trades. Raises: InvalidTrade; with an archive as `Archive`."""
        return self._tiers.page(wanted, part)

    def get_quarantined(self, limit: int) -> list[Trade]:
        """The newest trades in quarantine. Raises: StoreUnavailable, Corrupt."""
        places = [(entry.shard, entry.trade_id) for entry in self._store.quarantined(limit)]
        found = [codec.unpack(value) for value in self._store.read(places) if value is not None]
        return [trade for trade in found if isinstance(trade, Trade) and trade.quarantine is not None]

    def get_recent_trades(self, wanted: TradeFilter, limit: int, *, known_max: int) -> list[Trade]:
        """The newest of the wanted trades; `known_max`: how many of each shard the store lists as recent.

        Where no index leads to them, the newest of all are looked at; when too few of those are wanted,
        every trade is. Raises: as `get_trades`.
        """
        if wanted.user_id is not None or wanted.symbol is not None:
            return self._tiers.page(wanted, Part(limit=limit)).trades
        depth = min(limit if wanted == TradeFilter() else LIMIT_MAX, known_max)
        newest = self._tiers.page(TradeFilter(), Part(limit=depth)).trades
        found = [trade for trade in newest if wanted.admits(trade)]
        is_short = len(newest) < depth
        if len(found) >= limit or (not is_short and newest[-1].created_at < (wanted.since or 0)):
            return found[:limit]
        if is_short and self._lists_all(known_max):
            return found
        return heapq.nlargest(limit, self.get_all_trades(wanted), key=place_of)

    def get_open_trades(self, wanted: TradeFilter) -> Iterator[Trade]:
        """The wanted trades that are open, streamed. Raises: InvalidTrade."""
        return filter(wanted.admits, self._open_trades(wanted.user_id))

    def get_user_summary(
        self, user_id: str, *, source: str | None = None, currency: str | None = None, statistics: bool = True
    ) -> Summary:
        """The user's figures as they are now. Raises: InvalidTrade; with an archive as `Archive`."""
        known_id("user_id", user_id)
        summary_of = self._summaries.whole if statistics else self._summaries.counted
        return summary_of(user_id, source=source, currency=currency)

    def sql(self, query: str, *, limit: int = ROWS_MAX) -> QueryResult:
        """What a SELECT on the table `trades` returns. Raises: InvalidQuery; as `run_query`."""
        return run_query(query, self._tiers.live(whole=True), self._tiers.archive.folder, limit=limit)

    def export(self, path: Path, wanted: TradeFilter, *, file_format: str | None, force: bool) -> int:
        """Write the wanted trades to `path`. Raises: as `write_export`."""
        chosen = choose_format(path, file_format)
        trades = self._tiers.stream(wanted, whole=True)
        return write_export(path, trades, chosen, force=force)

    def _lists_all(self, known_max: int) -> bool:
        """Whether a list of the newest that is short has all trades.

        A trade that was archived leaves the list, and none that was pushed out before comes back.
        """
        if self._tiers.archive.is_here:
            return True
        return all(digest.count <= known_max for digest in self._store.digests(self._store.keys.shards))

    def _open_trades(self, user_id: str | None) -> Iterator[Trade]:
        if user_id is not None:
            yield from self._store.open_trades_of_user(user_id)
            return
        for shard in self._store.keys.shards:
            yield from self._store.open_trades(shard)


def _times_of(trade: Trade) -> list[int]:
    """When the trade changed, as far as it says."""
    given = (trade.created_at, trade.opened_at, trade.closed_at, trade.updated_at)
    fills = (fill.at for fill in trade.fills)
    return [at for at in (*given, *fills, *trade.field_times.values()) if at is not None]


def _unknown(trade_id: object) -> UnknownTrade:
    return UnknownTrade("no such trade", field="trade_id", value=trade_id, cure="check the id")
