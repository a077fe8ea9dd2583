"""The book of the pool's open trades, kept in step with the pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tradepool.marking.positions import position_of
from tradepool.model.trade import Trade
from tradepool.pnl.book import Book
from tradepool.store.redis_store import RedisStore

__all__ = ["OpenBook"]


class OpenBook:
    """The open trades of some shards as a `Book`. One thread at a time uses it.

    Before each mark the shards with a new outbox position are read again; the others keep their rows.
    """

    def __init__(self, store: RedisStore, shards: Sequence[int]) -> None:
        self.book = Book()
        self._store = store
        self._shards = shards
        self._positions: dict[int, str] = {}
        self._held: dict[int, set[str]] = {}
        self._reads = 0

    def catch_up(self) -> None:
        """Take what the pool has changed since the last call.

        The position is taken first: a commit after it only means one more read at the next mark.

        Raises: StoreUnavailable.
        """
        for shard, position in zip(self._shards, self._store.positions(self._shards), strict=True):
            if self._positions.get(shard) != position:
                self._replace(shard, self._store.open_trades(shard))
                self._positions[shard] = position

    def _replace(self, shard: int, trades: Iterable[Trade]) -> None:
        self._reads += 1
        rows = [position_of(trade) for trade in trades if trade.open_amount]
        held = {row.trade_id for row in rows}
        self.book.remove(self._held.get(shard, set()) - held)
        self.book.upsert(rows, self._reads)
        self._held[shard] = held
