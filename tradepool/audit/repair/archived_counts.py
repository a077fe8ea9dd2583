"""What archived trades of a shard counted when they went: the journal has their last versions."""

from __future__ import annotations

from collections.abc import Iterable

from tradepool.audit.repair.journaled import newest_records
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.files.lines import JournalLine
from tradepool.model import codec
from tradepool.model.counters import add_counters, contribution

__all__ = ["ArchivedCounts"]


class ArchivedCounts:
    """Counters of one shard's archived trades: what such a trade counted never changes.

    Memory grows with the trades that were asked about.
    """

    def __init__(self, pool: RepairedPool, shard: int) -> None:
        self._pool = pool
        self._shard = shard
        self._known: dict[str, dict[str, int]] = {}
        self._unknown: set[str] = set()

    def look_up(self, trade_ids: Iterable[str]) -> None:
        """Have the journal tell of those trades, in one pass. Raises: as `newest_records`."""
        wanted = frozenset(trade_ids) - self._known.keys() - self._unknown
        if not wanted:
            return

        def is_wanted(line: JournalLine) -> bool:
            return line.shard == self._shard and line.kind == codec.TRADE_KIND and line.record_id in wanted

        for trade_id, journaled in newest_records(self._pool, [self._shard], is_wanted).items():
            self._known[trade_id] = contribution(codec.decode_trade(bytes(journaled.line.record)))
        self._unknown |= wanted - self._known.keys()

    def total(self, trade_ids: frozenset[str]) -> dict[str, int] | None:
        """What they come to; None where the journal lacks one of them. Raises: as `look_up`."""
        self.look_up(trade_ids)
        if not trade_ids <= self._known.keys():
            return None
        total: dict[str, int] = {}
        for trade_id in trade_ids:
            add_counters(total, self._known[trade_id])
        return total
