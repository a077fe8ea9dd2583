"""The read side (the old trade_pool_queries): trades by id, user, symbol and time; summaries; history.

Lists are newest first by creation time and id; archived trades stand in them where the archive is on
this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tradepool.archive.exporting import choose_format, write_export
from tradepool.archive.querying import ROWS_MAX, QueryResult, run_query
from tradepool.archive.reading import Wanted
from tradepool.errors import UnknownTrade
from tradepool.files.reading import read_history
from tradepool.holdings import Holdings
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.summary import Summary, summarise
from tradepool.model.times import parse_time
from tradepool.model.trade import Trade
from tradepool.narrowing import Narrowing, Page, checked_limit, narrow
from tradepool.placing import known_id
from tradepool.store.redis_store import RedisStore
from tradepool.store.user_cache import UserCache

__all__ = ["TradeQueries"]


class TradeQueries:
    """Reads trades from Redis and the archive, their history from the journal."""

    def __init__(
        self, store: RedisStore, journal: Path, holdings: Holdings, summaries: UserCache[Summary]
    ) -> None:
        self._store = store
        self._journal = journal
        self._holdings = holdings
        self._summaries = summaries

    def get_trade(self, trade_id: str, *, as_of: object = None) -> Trade:
        """The trade now, or its newest version up to `as_of`.

        Raises: InvalidTrade; UnknownTrade, also for an archived trade where there is no archive; Corrupt
        when the archive has lost it; else as `Archive` for an archived trade.
        """
        known_id("trade_id", trade_id)
        if as_of is not None:
            return self._as_of(trade_id, parse_time("as_of", as_of))
        shard = self._store.shard_of_trade(trade_id)
        value = None if shard is None else self._store.read([(shard, trade_id)])[0]
        record = None if value is None else codec.unpack(value)
        if isinstance(record, Archived):
            return self._holdings.find(record)
        if not isinstance(record, Trade):
            raise _unknown(trade_id)
        return record

    def get_trade_history(self, trade_id: str) -> list[Trade]:
        """Every journaled version, oldest first, also of an archived trade. Raises: UnknownTrade."""
        known_id("trade_id", trade_id)
        lines = read_history(self._journal, trade_id)
        history = [codec.decode_trade(bytes(line.record)) for line in lines if line.kind == codec.TRADE_KIND]
        if not history:
            raise _unknown(trade_id)
        return history

    def _as_of(self, trade_id: str, as_of: int) -> Trade:
        known = [trade for trade in self.get_trade_history(trade_id) if trade.updated_at <= as_of]
        if not known:
            raise _unknown(trade_id)
        return known[-1]

    def get_all_trades(self, source: str | None = None) -> Iterator[Trade]:
        """Every trade once, streamed, in no particular order; the live ones where there is no archive.

        Raises: InvalidTrade; with an archive as `Archive`.
        """
        return (found.trade for found in self._holdings.stream(narrow(source=source)))

    def get_trades_by_user(self, user_id: str, narrowing: Narrowing) -> Page:
        """A page of the user's trades. Raises: InvalidTrade; with an archive as `Archive`."""
        known_id("user_id", user_id)
        wanted = Wanted(user_id=user_id)
        return self._holdings.page(lambda window: self._store.user_page(user_id, window), narrowing, wanted)

    def get_trades_by_symbol(self, symbol: str, narrowing: Narrowing) -> Page:
        """A page of the symbol's trades over all users. Raises: as `get_trades_by_user`."""
        known_id("symbol", symbol)
        wanted = Wanted(symbol=symbol)
        return self._holdings.page(lambda window: self._store.symbol_page(symbol, window), narrowing, wanted)

    def get_recent_trades(self, limit: int = 1000, user_id: str | None = None) -> list[Trade]:
        """The newest trades of one user, or of the live ones of all. Raises: as `get_trades_by_user`."""
        narrowing = Narrowing(limit=checked_limit(limit))
        if user_id is not None:
            return self.get_trades_by_user(user_id, narrowing).trades
        return self._holdings.read(self._store.recent_ids(narrowing.limit))

    def get_open_trades(self, user_id: str | None = None) -> Iterator[Trade]:
        """Open trades of one user or of all, streamed."""
        if user_id is not None:
            known_id("user_id", user_id)
            yield from self._store.open_trades_of_user(user_id)
            return
        for shard in self._store.keys.shards:
            yield from self._store.open_trades(shard)

    def get_user_summary(
        self, user_id: str, *, source: str | None = None, currency: str | None = None
    ) -> Summary:
        """The user's figures, computed once per change of his trades. Raises: InvalidTrade."""
        known_id("user_id", user_id)
        return self._summaries.get(
            user_id, (source, currency), lambda: self._summarise(user_id, source, currency)
        )

    def sql(self, query: str, *, limit: int = ROWS_MAX) -> QueryResult:
        """What a SELECT on the table `trades` returns. Raises: InvalidQuery; as `run_query`."""
        return run_query(query, self._holdings.live(whole=True), self._holdings.archive.folder, limit=limit)

    def export(
        self, path: Path, narrowing: Narrowing, *, user_id: str | None, file_format: str | None, force: bool
    ) -> int:
        """Write the trades that `narrowing` admits to `path`. Raises: as `write_export`."""
        if user_id is not None:
            known_id("user_id", user_id)
        chosen = choose_format(path, file_format)
        trades = self._holdings.stream(narrowing, user_id, whole=True)
        return write_export(path, trades, chosen, force=force)

    def _summarise(self, user_id: str, source: str | None, currency: str | None) -> Summary:
        """Where archived trades cannot be read, only the statistics go without them."""
        trades = (found.trade for found in self._holdings.stream(Narrowing(), user_id))
        has_archived = self._store.archived_counters(user_id)
        return summarise(
            trades,
            user_id=user_id,
            source=source,
            currency=currency,
            lifetime=self._store.counters(user_id) if has_archived else None,
        )


def _unknown(trade_id: object) -> UnknownTrade:
    return UnknownTrade("no such trade", field="trade_id", value=trade_id, cure="check the id")
