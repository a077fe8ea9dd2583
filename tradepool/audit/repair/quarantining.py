"""Trades with a critical fault that nothing can repair: kept as they are, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from tradepool.audit.repair.committing import commit_next
from tradepool.audit.repair.cures import PERSON
from tradepool.audit.repair.fixes import CHANGED, Fix, refusal
from tradepool.audit.repair.journaled import Journaled, newest_records
from tradepool.audit.repair.records import RecordRepairs, intact_version, next_version
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.second_look import NEVER_JOURNALED, FoundTrade, find_trade, still_stands
from tradepool.audit.report import Finding
from tradepool.audit.rules.registry import RULES, Repair
from tradepool.commanding import new_command_id
from tradepool.errors import Corrupt, JournalUnavailable, Rejected
from tradepool.model import codec
from tradepool.model.changes import RELEASED
from tradepool.model.commands import QuarantineTrade
from tradepool.model.trade import SCHEMA_VERSION, Trade

__all__ = ["quarantine_fixes", "quarantined_count"]

_REASON_CHARS_MAX = 400


def quarantine_fixes(
    pool: RepairedPool, findings: Iterable[Finding], records: RecordRepairs | None = None
) -> Iterator[Fix]:
    """What to quarantine of the trades that findings name: each once, for the first of its faults that is
    still there and that nobody has released it from.

    `records` are told of those that the journal does not have yet.
    """
    records = records or RecordRepairs(pool)
    faults: dict[str, list[Finding]] = {}
    for finding in sorted(findings):
        if finding.rule in RULES and RULES[finding.rule].repair is Repair.QUARANTINE:
            faults.setdefault(finding.subject, []).append(finding)
    unknown = {
        trade_id for trade_id, found in faults.items() if any(f.rule == NEVER_JOURNALED for f in found)
    }
    journaled = _journaled(pool, unknown)
    for trade_id, found in faults.items():
        fix = _fix(pool, trade_id, found, journaled, records)
        if fix is not None:
            yield fix


def quarantined_count(pool: RepairedPool) -> int:
    """How many trades are in quarantine. Raises: StoreUnavailable, Corrupt."""
    return sum(pool.mender.ask([("ZCARD", pool.keys.quarantined(shard)) for shard in pool.keys.shards]))


def _journaled(pool: RepairedPool, trade_ids: set[str]) -> dict[str, Journaled | None] | str:
    """What the journal has of those trades, None for nothing; or why that cannot be told."""
    if not trade_ids:
        return {}
    try:
        found = newest_records(pool, pool.keys.shards, lambda line: line.record_id in trade_ids)
    except (Corrupt, JournalUnavailable) as problem:
        return str(problem)
    return {trade_id: found.get(trade_id) for trade_id in trade_ids}


def _fix(
    pool: RepairedPool,
    trade_id: str,
    faults: list[Finding],
    journaled: dict[str, Journaled | None] | str,
    records: RecordRepairs,
) -> Fix | None:
    found = find_trade(pool, trade_id)
    if found is None:
        return _no_trade(trade_id)
    trade = found.trade
    for finding in faults:
        if finding.rule == NEVER_JOURNALED:
            records.note_unsound(trade_id, found.shard, trade.user_id)
            if isinstance(journaled, str):
                return refusal(Repair.QUARANTINE, trade_id, journaled, trade.user_id)
            return _adopted(pool, records, found, _reason(finding), journaled)
    if trade.schema_version > SCHEMA_VERSION:
        why = "this release does not know the trade's schema, and would lose what it does not know"
        return refusal(Repair.QUARANTINE, trade_id, why, trade.user_id)
    fault = _standing(pool, found, faults)
    if fault is None:
        return None
    return Fix(
        action=Repair.QUARANTINE,
        subject=trade_id,
        detail=f"nothing → {_reason(fault)}",
        act=partial(_quarantine, pool, trade_id, fault),
        user_id=trade.user_id,
    )


def _no_trade(name: str) -> Fix:
    if "/" not in name:
        return refusal(Repair.QUARANTINE, name, "there is no such trade that can be read")
    why = (
        "a ledger that the journal never had: if its account is real, tell its balances anew "
        "(update_available_tokens) once the record is deleted by hand (HDEL) and the sums are repaired"
    )
    return refusal(PERSON, name, why)


def _reason(finding: Finding) -> str:
    return f"{finding.rule}: {finding.detail}"[:_REASON_CHARS_MAX]


def _standing(pool: RepairedPool, found: FoundTrade, faults: Iterable[Finding]) -> Finding | None:
    """The first fault for which the trade is to be in quarantine; None where it is, or for none."""
    if found.trade.quarantine is not None:
        return None
    news = (fault for fault in faults if not _was_released(found.trade, fault.rule))
    return next((fault for fault in news if still_stands(pool, found, fault)), None)


def _was_released(trade: Trade, rule: str) -> bool:
    """Whether a person has looked at this very fault before, and let the trade go on."""
    return any(note.startswith(f"{RELEASED}{rule}:") for note in trade.notes)


def _quarantine(pool: RepairedPool, trade_id: str, fault: Finding) -> str | None:
    found = find_trade(pool, trade_id)
    if found is None or _standing(pool, found, [fault]) is None:
        return CHANGED
    command_id = f"quarantine:{new_command_id()}"
    command = QuarantineTrade(
        command_id=command_id, as_of=pool.now_us(), trade_id=trade_id, reason=_reason(fault)
    )
    result = pool.apply([command])[0]
    return str(result) if isinstance(result, Rejected) else None


def _adopted(
    pool: RepairedPool,
    records: RecordRepairs,
    found: FoundTrade,
    reason: str,
    journaled: dict[str, Journaled | None],
) -> Fix | None:
    """Have the journal know it, as the version after its own, and in quarantine.

    Left as it is, the next change of the trade would be one that recovery refuses.
    """
    trade, version = found.trade, 0
    newest = journaled.get(trade.trade_id)
    if newest is not None:
        version = newest.line.version
        if intact_version(found.value) <= version:
            return None
        if not newest.is_chain:
            why = "its versions in the journal do not follow each other; a person has to decide"
            return refusal(Repair.QUARANTINE, trade.trade_id, why, trade.user_id)
    return Fix(
        action=Repair.QUARANTINE,
        subject=trade.trade_id,
        detail=f"version {trade.version}, not journaled → version {version + 1} in quarantine: {reason}",
        act=partial(_adopt, pool, records, found, reason, journaled),
        user_id=trade.user_id,
    )


def _adopt(
    pool: RepairedPool,
    records: RecordRepairs,
    found: FoundTrade,
    reason: str,
    journaled: dict[str, Journaled | None],
) -> str | None:
    trade = found.trade
    change = next_version(trade.trade_id, found.value, msgspec.structs.replace(trade, quarantine=reason))
    if change is None or change.trade_after is None:
        return "this release does not know the trade's schema"
    newest = journaled.get(trade.trade_id)
    version = 1 if newest is None else newest.line.version + 1
    after = msgspec.structs.replace(change.trade_after, version=version)
    change = msgspec.structs.replace(
        change,
        after=codec.pack_trade(after),
        trade_before=trade,
        trade_after=after,
        continues="" if newest is None else newest.line.digest,
    )
    why = commit_next(pool, found.shard, change, journaled)
    if why is not None:
        return why
    # They may have had it already: a pool's own commit that the journal lost.
    pool.mender.recount(found.shard, [pool.keys.bucket_of(trade.trade_id)])
    records.note_sound(trade.trade_id)
    return None
