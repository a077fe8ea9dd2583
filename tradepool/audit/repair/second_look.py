"""Whether what an audit found of a trade is still so: its rule, asked again of the records as they are."""

from __future__ import annotations

from typing import NamedTuple

from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import content_at
from tradepool.audit.report import Finding
from tradepool.audit.rules import record_rules, relation_rules, trade_rules
from tradepool.audit.rules.relation_rules import Related
from tradepool.model.archived import Archived
from tradepool.model.relations import CHAIN_MAX
from tradepool.model.trade import Trade

__all__ = ["NEVER_JOURNALED", "FoundTrade", "find_trade", "still_stands"]

NEVER_JOURNALED = record_rules.missing_in_journal.name
"""The rule that only the journal can answer."""
_BY_ITSELF = frozenset(
    each.name
    for each in (
        trade_rules.quantities,
        trade_rules.lifecycle,
        trade_rules.recomputed_figures,
        trade_rules.cash_identity,
    )
)
_RELATIONS = {each.name: each for each in (relation_rules.related_foreign, relation_rules.related_cycle)}
_PAIRS = {
    relation_rules.duplicate_key.name: (relation_rules.duplicate_key, " as ", ""),
    relation_rules.duplicate_fill.name: (relation_rules.duplicate_fill, " is booked by ", " as well"),
}
"""Rule → it, and what stands in its findings before and behind the other trade's id."""


class FoundTrade(NamedTuple):
    """A live trade, where it is, and its stored value."""

    shard: int
    value: bytes
    trade: Trade


def find_trade(pool: RepairedPool, trade_id: str) -> FoundTrade | None:
    """The trade as it is now; its route may be missing. None: there is none that can be read."""
    routed = pool.keys.home_shard(trade_id)
    places = [(shard, trade_id) for shard in ([routed] if routed is not None else pool.keys.shards)]
    for (shard, _), value in zip(places, pool.store.read(places), strict=True):
        content = content_at(pool.keys, shard, trade_id, value)
        if value is not None and isinstance(content, Trade):
            return FoundTrade(shard, value, content)
    return None


def still_stands(pool: RepairedPool, found: FoundTrade, finding: Finding) -> bool:
    """Whether the finding's rule says the same of the trade now; of a rule not known here it does not."""
    trade, rule = found.trade, finding.rule
    if rule in _BY_ITSELF:
        return rule in {again.rule for again in trade_rules.check_trade(trade, now_us=pool.now_us())}
    if rule in _RELATIONS:
        return any(_RELATIONS[rule](_related(pool, found)))
    return rule in _PAIRS and _is_pair(pool, found, finding)


def _is_pair(pool: RepairedPool, found: FoundTrade, finding: Finding) -> bool:
    """The finding only says which other trade to read: both of one moment's look, in the audit's order."""
    rule, before, behind = _PAIRS[finding.rule]
    other_id = finding.detail.removesuffix(behind).rpartition(before)[2]
    if other_id == found.trade.trade_id:
        return any(rule(found.trade, found.trade))
    other = find_trade(pool, other_id)
    if other is None or other.trade.user_id != found.trade.user_id:
        return False
    pair = sorted((other.trade, found.trade), key=lambda trade: (trade.created_at, trade.trade_id))
    return pair[1] is found.trade and any(rule(*pair))


def _related(pool: RepairedPool, found: FoundTrade) -> Related:
    trade, way = found.trade, list[str]()
    step = trade.related_trade_id
    while step is not None and step not in way and len(way) < CHAIN_MAX:
        way.append(step)
        value = pool.store.read([(found.shard, step)])[0]
        content = content_at(pool.keys, found.shard, step, value)
        step = content.related_trade_id if isinstance(content, Trade) else None
    return Related(trade, _owner(pool, trade.related_trade_id), way)


def _owner(pool: RepairedPool, trade_id: str | None) -> str | None:
    """Whose the trade is; None where that cannot be told."""
    try:
        shard = None if trade_id is None else pool.store.shard_of_trade(trade_id)
    except ValueError:
        return None
    if shard is None or trade_id is None:
        return None
    content = content_at(pool.keys, shard, trade_id, pool.store.read([(shard, trade_id)])[0])
    return content.user_id if isinstance(content, Trade | Archived) else None
