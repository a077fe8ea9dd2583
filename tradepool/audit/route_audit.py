"""The ways that lead from a trade's id to its user."""

from __future__ import annotations

from tradepool.audit.report import Finding
from tradepool.audit.rules.index_rules import route
from tradepool.audit.shard_records import ShardRecords
from tradepool.batching import batched
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.store.redis_store import RedisStore

__all__ = ["compare_routes"]

_BATCH = 1000


def compare_routes(store: RedisStore, records: ShardRecords) -> list[Finding]:
    """Of each sound trade, live or archived: whether its id leads to its user's slot.

    Raises: StoreUnavailable.
    """
    findings: list[Finding] = []
    owners = {i: left.user_id for i, left in records.archived.items()} | records.trades
    unrouted: list[str] = []
    for trade_id in owners.keys() - records.unsound:
        carried, slot = slot_of_id(trade_id), slot_of_user(owners[trade_id])
        if carried is None:
            unrouted.append(trade_id)
        elif carried != slot:
            findings += route(trade_id, slot, carried)
    for batch in batched(sorted(unrouted), _BATCH):
        for trade_id, found in zip(batch, _routes(store, batch), strict=True):
            findings += route(trade_id, slot_of_user(owners[trade_id]), found)
    return findings


def _routes(store: RedisStore, trade_ids: list[str]) -> list[int | None]:
    """A route that is no number leads nowhere."""
    try:
        return store.routes(trade_ids)
    except ValueError:
        if len(trade_ids) == 1:
            return [None]
        return [slot for trade_id in trade_ids for slot in _routes(store, [trade_id])]
