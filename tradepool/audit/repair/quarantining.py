"""Trades with a critical fault that nothing can repair: kept as they are, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec

from tradepool.audit import record_rules, trade_rules
from tradepool.audit.registry import RULES, Repair
from tradepool.audit.repair.fixes import CHANGED, Fix, Tools, refusal
from tradepool.audit.repair.journaled import Journaled, await_journal, newest_records
from tradepool.audit.repair.records import RecordRepairs, intact_version, next_version
from tradepool.audit.repair.shard_state import content_of
from tradepool.audit.report import Finding
from tradepool.commanding import new_command_id
from tradepool.errors import Corrupt, JournalUnavailable, Rejected, VersionConflict
from tradepool.model import codec
from tradepool.model.changes import RELEASED
from tradepool.model.commands import QuarantineTrade
from tradepool.model.trade import SCHEMA_VERSION, Trade

__all__ = ["quarantine_fixes"]

_BY_ITSELF = frozenset(
    each.name
    for each in (
        trade_rules.quantities,
        trade_rules.lifecycle,
        trade_rules.recomputed_figures,
        trade_rules.cash_identity,
    )
)
_NEVER_JOURNALED = record_rules.missing_in_journal.name
_REASON_CHARS_MAX = 400


def quarantine_fixes(
    tools: Tools, findings: Iterable[Finding], records: RecordRepairs | None = None
) -> Iterator[Fix]:
    """What to quarantine of the trades that findings name: each once, for the first of its faults.

    `records` are told of those that the journal does not have yet.
    """
    records = records or RecordRepairs(tools)
    faults: dict[str, Finding] = {}
    for finding in sorted(findings):
        if finding.rule in RULES and RULES[finding.rule].repair is Repair.QUARANTINE:
            faults.setdefault(finding.subject, finding)
    journaled = _journaled(tools, {f.subject for f in faults.values() if f.rule == _NEVER_JOURNALED})
    for trade_id, finding in faults.items():
        fix = _fix(tools, trade_id, finding, journaled, records)
        if fix is not None:
            yield fix


def _journaled(tools: Tools, trade_ids: set[str]) -> dict[str, Journaled] | str:
    """What the journal has of those trades; or why that cannot be told."""
    if not trade_ids:
        return {}
    try:
        await_journal(tools, tools.keys.shards)
        return newest_records(tools, lambda line: line.record_id in trade_ids)
    except (Corrupt, JournalUnavailable) as problem:
        return str(problem)


def _fix(
    tools: Tools,
    trade_id: str,
    finding: Finding,
    journaled: dict[str, Journaled] | str,
    records: RecordRepairs,
) -> Fix | None:
    found = _find(tools, trade_id)
    if found is None:
        return refusal(Repair.QUARANTINE, trade_id, "there is no such trade that can be read")
    shard, value, trade = found
    reason = f"{finding.rule}: {finding.detail}"[:_REASON_CHARS_MAX]
    if finding.rule == _NEVER_JOURNALED:
        records.note_unsound(trade_id, shard, trade.user_id)
        if isinstance(journaled, str):
            return refusal(Repair.QUARANTINE, trade_id, journaled, trade.user_id)
        return _adopted(tools, records, _Unjournaled(shard, value, trade), reason, journaled.get(trade_id))
    if trade.schema_version > SCHEMA_VERSION:
        why = "this release does not know the trade's schema, and would lose what it does not know"
        return refusal(Repair.QUARANTINE, trade_id, why, trade.user_id)
    if trade.quarantine is not None or _was_released(trade, finding.rule) or _is_over(tools, trade, finding):
        return None
    return Fix(
        action=Repair.QUARANTINE,
        subject=trade_id,
        detail=f"nothing → {reason}",
        act=partial(_quarantine, tools, trade_id, reason),
        user_id=trade.user_id,
    )


def _find(tools: Tools, trade_id: str) -> tuple[int, bytes, Trade] | None:
    """Where a trade is, and as what: its route may be missing."""
    routed = tools.keys.home_shard(trade_id)
    places = [(shard, trade_id) for shard in ([routed] if routed is not None else tools.keys.shards)]
    for (shard, _), value in zip(places, tools.store.read(places), strict=True):
        content = content_of(value)
        if value is not None and isinstance(content, Trade):
            return shard, value, content
    return None


def _was_released(trade: Trade, rule: str) -> bool:
    """Whether a person has looked at this very fault before, and let the trade go on."""
    return any(note.startswith(f"{RELEASED}{rule}:") for note in trade.notes)


def _is_over(tools: Tools, trade: Trade, finding: Finding) -> bool:
    if finding.rule not in _BY_ITSELF:
        return False
    found = trade_rules.check_trade(trade, now_us=tools.now_us())
    return finding.rule not in {again.rule for again in found}


def _quarantine(tools: Tools, trade_id: str, reason: str) -> str | None:
    command_id = f"quarantine:{new_command_id()}"
    command = QuarantineTrade(command_id=command_id, as_of=tools.now_us(), trade_id=trade_id, reason=reason)
    result = tools.apply([command])[0]
    return str(result) if isinstance(result, Rejected) else None


class _Unjournaled(NamedTuple):
    """What somebody wrote past the journal."""

    shard: int
    value: bytes
    trade: Trade


def _adopted(
    tools: Tools, records: RecordRepairs, found: _Unjournaled, reason: str, journaled: Journaled | None
) -> Fix | None:
    """Have the journal know it, as the version after its own, and in quarantine.

    Left as it is, the next change of the trade would be one that recovery refuses.
    """
    trade, version = found.trade, 0
    if journaled is not None:
        version = journaled.line.version
        if intact_version(found.value) <= version:
            return None
        if not journaled.is_chain:
            why = "its versions in the journal do not follow each other; a person has to decide"
            return refusal(Repair.QUARANTINE, trade.trade_id, why, trade.user_id)
    return Fix(
        action=Repair.QUARANTINE,
        subject=trade.trade_id,
        detail=f"version {trade.version}, not journaled → version {version + 1} in quarantine: {reason}",
        act=partial(_adopt, tools, records, found, reason, journaled),
        user_id=trade.user_id,
    )


def _adopt(
    tools: Tools, records: RecordRepairs, found: _Unjournaled, reason: str, journaled: Journaled | None
) -> str | None:
    trade = found.trade
    change = next_version(trade.trade_id, found.value, msgspec.structs.replace(trade, quarantine=reason))
    if change is None or change.trade_after is None:
        return "this release does not know the trade's schema"
    version = 1 if journaled is None else journaled.line.version + 1
    after = msgspec.structs.replace(change.trade_after, version=version)
    change = msgspec.structs.replace(
        change,
        after=codec.pack_trade(after),
        trade_before=trade,
        trade_after=after,
        continues="" if journaled is None else journaled.line.digest,
    )
    try:
        tools.store.commit(found.shard, [change])
    except VersionConflict:
        return CHANGED
    records.note_sound(trade.trade_id)
    return None
