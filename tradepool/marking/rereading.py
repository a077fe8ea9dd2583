"""A book for a process without the journal: a shard that has changed is read again, whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tradepool.marking.positions import open_positions, put
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.pnl.book import Book
from tradepool.store.redis_store import RedisStore

__all__ = ["Rereading"]


class Rereading:
    """The open trades of some shards, as the store has them. One thread at a time.

    The version of a row is the number of the reading: a server that has lost changes holds older ones again.
    """

    def __init__(self, store: RedisStore, shards: Sequence[int]) -> None:
        self.book = Book()
        self._store = store
        self._shards = shards
        self._generation = ""
        self._positions: dict[int, str] = {}
        self._held: dict[int, set[str]] = {}
        self._readings = 0

    def catch_up(self) -> bool:
        """Read the shards again that have changed since the last call; whether there were any.

        The position is taken first: a commit after it only means one more reading the next time.

        Raises: JournalUnavailable when the server was recovered meanwhile, so that half of it may have been
        read; the next call reads all of it again. StoreUnavailable, Fenced.
        """
        # While a server waits for its recovery it may hold half of what was there, or what it loses.
        generation = self._store.generation()
        if generation != self._generation:
            self._positions.clear()
            self._generation = generation
        changed = False
        for shard, position in zip(self._shards, self._store.positions(self._shards), strict=True):
            if self._positions.get(shard) != position:
                self._replace(shard)
                self._positions[shard] = position
                changed = True
        if changed:
            self._store.check_generation(generation)
        return changed

    def has_reached(self, positions: Mapping[int, str]) -> bool:
        """Whether everything up to `positions` (shard → outbox position) has been taken."""
        return all(
            parse_position(self._positions.get(shard, START_POSITION)) >= parse_position(position)
            for shard, position in positions.items()
        )

    def _replace(self, shard: int) -> None:
        self._readings += 1
        rows = [position for position, _ in open_positions(self._store, shard)]
        held = {row.trade_id for row in rows}
        self.book.remove(self._held.get(shard, set()) - held)
        put(self.book, rows, [self._readings] * len(rows))
        self._held[shard] = held
