"""Faults that no repair takes away: each is told with what a person can do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tradepool.audit.repair.fixes import Fix, refusal
from tradepool.audit.report import Finding
from tradepool.audit.rules import file_rules, key_rules, ledger_rules, trade_rules, venue_rules

__all__ = ["PERSON", "cure_fixes"]

PERSON = "a person has to decide"
_BACKUP = "restore the day's folder of the archive from a backup"
_LEDGER = "tell the account's balances as its venue has them (update_available_tokens), then audit again"
_VENUE = "compare the account with its venue: book the fills, or tell the balances, that are missing here"
_NEWER = "start the release that wrote it; this one would lose what it does not know"
_CURES = {
    file_rules.outbox_stuck.name: "start the files worker, or free its disk; nothing that waits is lost",
    file_rules.outbox_unreadable.name: "keep a copy of the entry, delete it (`XDEL`), start the files worker",
    file_rules.journal_damaged.name: (
        "keep a copy of the data folder, restore the file from a backup; "
        "`tradepool verify-log` says what is whole"
    ),
    file_rules.archive_missing.name: _BACKUP,
    file_rules.archive_damaged.name: _BACKUP,
    file_rules.archive_different.name: _BACKUP,
    trade_rules.trade_schema.name: _NEWER,
    ledger_rules.ledger_schema.name: _NEWER,
    ledger_rules.balance_conservation.name: _LEDGER,
    ledger_rules.reservation_key.name: "release the reservation by hand, or let it expire",
    venue_rules.venue_quantity.name: _VENUE,
    venue_rules.venue_balance.name: _VENUE,
    key_rules.unknown_key.name: "find out who wrote it; delete it (`DEL`) if nobody needs it",
}


def cure_fixes(findings: Iterable[Finding]) -> Iterator[Fix]:
    """A refused step for each finding that only a person can do something about."""
    for rule, subject in sorted({(finding.rule, finding.subject) for finding in findings}):
        cure = _CURES.get(rule)
        if cure is not None:
            yield refusal(PERSON, subject, f"{rule}: {cure}")
