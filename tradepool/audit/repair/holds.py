"""Reservations whose time is over, or whose trade is gone: given back by ordinary commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from tradepool.audit.repair.fixes import CHANGED, Fix, refusal
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import content_at
from tradepool.audit.report import Finding, shown
from tradepool.audit.rules import ledger_rules
from tradepool.audit.rules.ledger_rules import Held
from tradepool.audit.rules.registry import Repair
from tradepool.commanding import new_command_id
from tradepool.errors import Rejected
from tradepool.model.ids import slot_of_id, slot_of_user
from tradepool.model.ledger import Ledger, ledger_id, reservation_id
from tradepool.model.token_commands import ExpireTokens, ReleaseTokens, TokenCommand
from tradepool.model.trade import Trade

__all__ = ["hold_fixes"]

_RULES = (ledger_rules.expired_reservation.name, ledger_rules.orphan_reservation.name)


def hold_fixes(pool: RepairedPool, findings: Iterable[Finding]) -> Iterator[Fix]:
    """What to give back of the ledgers that findings name."""
    for subject in sorted({finding.subject for finding in findings if finding.rule in _RULES}):
        for user_id, account_id in _owners(subject):
            ledger = _ledger(pool, user_id, account_id)
            if ledger is not None:
                yield from _of_ledger(pool, ledger)


def _owners(subject: str) -> Iterator[tuple[str, str]]:
    """Whose ledger a finding may mean: it shows user and account with a stroke, which both may have."""
    for place, letter in enumerate(subject):
        if letter == "/":
            yield subject[:place], subject[place + 1 :]


def _ledger(pool: RepairedPool, user_id: str, account_id: str) -> Ledger | None:
    shard = pool.keys.shard(slot_of_user(user_id))
    try:
        record_id = ledger_id(user_id, account_id)
    except Rejected:
        return None
    content = content_at(pool.keys, shard, record_id, pool.store.read([(shard, record_id)])[0])
    return content if isinstance(content, Ledger) else None


def _of_ledger(pool: RepairedPool, ledger: Ledger) -> Iterator[Fix]:
    user_id, account_id, now = ledger.user_id, ledger.account_id, pool.now_us()
    if ledger.schema_version > ledger_rules.LEDGER_SCHEMA:
        why = "this release does not know the ledger's schema, and would lose what it does not know"
        yield refusal(Repair.RELEASE, ledger_id(user_id, account_id), why, user_id)
        return
    if ledger_rules.expired_reservation(ledger, now):
        over = [key for key, hold in ledger.reservations.items() if hold.expires_at <= now]
        command_id = f"repair:{new_command_id()}"
        command = ExpireTokens(command_id=command_id, as_of=now, user_id=user_id, account_id=account_id)
        yield _fix(pool, ledger, f"{', '.join(map(repr, over))}: open → expired", command)
    for key, hold in ledger.reservations.items():
        if hold.expires_at > now and _is_orphan(pool, ledger, key):
            command_id = f"repair:{new_command_id()}"
            name = reservation_id(user_id, account_id, key)
            release = ReleaseTokens(command_id=command_id, as_of=now, reservation_id=name)
            yield _fix(pool, ledger, f"{key!r}: open → released", release, orphan=key)


def _is_orphan(pool: RepairedPool, ledger: Ledger, key: str) -> bool:
    shard = pool.keys.shard_of_user(ledger.user_id)
    value = pool.store.read([(shard, key)])[0]
    content = content_at(pool.keys, shard, key, value)
    if value is None and slot_of_id(key) != slot_of_user(ledger.user_id):
        # A name that the caller chose, and no trade's id.
        return False
    if value is not None and content is None:
        return False
    held = Held(ledger, key, content if isinstance(content, Trade) else None)
    return bool(ledger_rules.orphan_reservation(held, pool.now_us()))


def _fix(
    pool: RepairedPool, ledger: Ledger, detail: str, command: TokenCommand, orphan: str | None = None
) -> Fix:
    return Fix(
        action=Repair.RELEASE,
        subject=shown(ledger_id(ledger.user_id, ledger.account_id)),
        detail=detail,
        act=partial(_give_back, pool, ledger, command, orphan),
        user_id=ledger.user_id,
    )


def _give_back(pool: RepairedPool, seen: Ledger, command: TokenCommand, orphan: str | None) -> str | None:
    """An orphan is looked at once more: its trade may have come, or come back to life."""
    ledger = _ledger(pool, seen.user_id, seen.account_id)
    if ledger is None or (orphan is not None and not _is_orphan(pool, ledger, orphan)):
        return CHANGED
    result = pool.apply([command])[0]
    return str(result) if isinstance(result, Rejected) else None
