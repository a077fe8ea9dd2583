"""Trades against other trades of their user, and reservations against the trades that they are for.

What was read at different moments is read again at one before a rule judges it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tradepool.audit.at_rest import at_rest
from tradepool.audit.report import Finding
from tradepool.audit.rules import relation_rules
from tradepool.audit.rules.ledger_rules import Held, orphan_reservation
from tradepool.audit.rules.relation_rules import Related
from tradepool.audit.shard_records import Pair, ShardRecords
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.model.ledger import Ledger, owner_of_ledger
from tradepool.model.relations import CHAIN_MAX
from tradepool.model.trade import Trade
from tradepool.store.redis_store import RedisStore

__all__ = ["RelationAudit"]

_PAIR_RULES = (relation_rules.duplicate_key, relation_rules.duplicate_fill, relation_rules.duplicate_order)


class RelationAudit:
    """The audit of the relations within the `records` of one shard; a user's trades are all in one shard."""

    def __init__(self, store: RedisStore, shard: int, records: ShardRecords, *, now_us: int) -> None:
        self._store = store
        self._shard = shard
        self._records = records
        self._now_us = now_us

    def findings(self) -> Iterator[Finding]:
        """Duplicates, relations that lead nowhere, to others or back, reservations without a trade."""
        for pair in sorted(self._records.pairs):
            yield from self._of_pair(pair)
        for trade_id in sorted(self._records.related):
            if self._is_doubtful(trade_id):
                yield from self._of_relation(trade_id)
        yield from self.orphans()

    def orphans(self) -> Iterator[Finding]:
        """The reservations whose trade is gone or final."""
        for ledger_id, key in self._records.holds:
            if self._may_be_orphan(ledger_id, key):
                yield from self._of_hold(ledger_id, key)

    def _of_pair(self, pair: Pair) -> Iterator[Finding]:
        """The later one of two is at fault; a trade has its key and its orders to itself."""
        found = [record for record in self._read(list(dict.fromkeys(pair))) if isinstance(record, Trade)]
        found.sort(key=lambda trade: (trade.created_at, trade.trade_id))
        if found and pair.first == pair.second:
            yield from relation_rules.duplicate_fill(found[0], found[0])
        elif len(found) > 1:
            for each in _PAIR_RULES:
                yield from each(*found)

    def _is_doubtful(self, trade_id: str) -> bool:
        records = self._records
        named = records.related[trade_id]
        owner = records.trades.get(named)
        if owner is None and named in records.archived:
            owner = records.archived[named].user_id
        return owner != records.trades[trade_id] or trade_id in self._way(trade_id)

    def _way(self, trade_id: str) -> list[str]:
        way: list[str] = []
        step = self._records.related.get(trade_id)
        while step is not None and step not in way and len(way) < CHAIN_MAX:
            way.append(step)
            step = self._records.related.get(step)
        return way

    def _of_relation(self, trade_id: str) -> Iterator[Finding]:
        way = self._way(trade_id)
        trade, *others = self._read([trade_id, *(step for step in way if step != trade_id)])
        if not isinstance(trade, Trade) or trade.related_trade_id is None:
            return
        names = {other.trade_id: other.related_trade_id for other in others if isinstance(other, Trade)}
        names[trade_id] = trade.related_trade_id
        is_way = all(names.get(step) == after for step, after in zip([trade_id, *way], way, strict=False))
        related = Related(trade, self._owner_of(trade), way if is_way else ())
        yield from relation_rules.related_missing(related, self._now_us)
        yield from relation_rules.related_foreign(related)
        yield from relation_rules.related_cycle(related)

    def _owner_of(self, trade: Trade) -> str | None:
        """Whose trade it is that the trade names, None: nobody's."""
        named = trade.related_trade_id or ""
        try:
            shard = self._store.shard_of_trade(named)
            value = None if shard is None else self._store.read([(shard, named)])[0]
            record = None if value is None else codec.unpack(value)
        except (Corrupt, ValueError):
            # Whoever reads the record, or the route to it, finds that.
            return trade.user_id
        return record.user_id if isinstance(record, Trade | Archived) else None

    def _may_be_orphan(self, ledger_id: str, key: str) -> bool:
        """A key that is no trade's id, and could not have been, is a name that the caller chose."""
        records = self._records
        if key in records.open or key in records.unsound:
            return False
        user_id, _ = owner_of_ledger(ledger_id)
        return key in records.trades or key in records.archived or slot_of_id(key) == slot_of_user(user_id)

    def _of_hold(self, ledger_id: str, key: str) -> Iterator[Finding]:
        ledger, trade = self._read([ledger_id, key])
        if isinstance(ledger, Ledger):
            held = Held(ledger, key, trade if isinstance(trade, Trade) else None)
            yield from orphan_reservation(held, self._now_us)

    def _read(self, record_ids: list[str]) -> list[codec.Record | None]:
        """The records as they are now, of one moment; none of them where they will not stand still."""
        found = at_rest(self._store, self._shard, record_ids, lambda: None)
        return [None] * len(record_ids) if found is None else found[0]
