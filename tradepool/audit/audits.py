"""The audits a pool offers: check_all_trades and check_trades (the old modules of those names)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from tradepool.archive.reading import Archive
from tradepool.audit.archive_audit import check_archive
from tradepool.audit.digest_audit import DigestOutcome, compare_digests
from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.audit.shard_audit import ShardAudit
from tradepool.errors import Misconfigured, StoreUnavailable
from tradepool.files.reading import newest_versions
from tradepool.placing import known_id
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["Audits"]

_ATTEMPTS_MAX = 3


class Audits:
    """Audits of one pool; they only read."""

    def __init__(
        self,
        store: RedisStore,
        watermark: Watermark,
        journal: Path,
        archive: Archive,
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._watermark = watermark
        self._journal = journal
        self._archive = archive
        self._now_us = now_us

    def check_all_trades(self, *, deep: bool = False, repair: bool = False) -> AuditReport:
        """Compare the digests of every shard; then record by record what differs, or (deep) everything.

        Raises: Misconfigured for `repair`, which this release does not have; StoreUnavailable,
        JournalUnavailable, Corrupt when the journal itself is damaged.
        """
        if repair:
            raise Misconfigured(
                "this release cannot repair; `tradepool recover` rebuilds Redis from the journal"
            )
        report = self._undisturbed(lambda: self._check_all(deep=deep))
        self._store.write_last_audit(msgspec.json.encode(report.to_dict()))
        return report

    def last_report(self) -> dict[str, Any] | None:
        """The last report of `check_all_trades`, from whichever process; None before the first."""
        value = self._store.read_last_audit()
        return None if value is None else msgspec.json.decode(value, type=dict[str, Any])

    def check_trades(self, user_id: str, *, deep: bool = True) -> AuditReport:
        """One user's trades and balances against rules, indexes and counters, and (deep) the journal."""
        known_id("user_id", user_id)
        return self._undisturbed(lambda: self._check_user(user_id, deep=deep))

    def _undisturbed(self, check: Callable[[], AuditReport]) -> AuditReport:
        """A report of one generation of the server: a recovery in between takes back what was seen.

        Raises: StoreUnavailable when the server does not stay up for one audit.
        """
        for _ in range(_ATTEMPTS_MAX):
            generation = self._store.generation()
            report = check()
            if self._store.generation() == generation:
                return report
        raise StoreUnavailable(f"the server was recovered during each of {_ATTEMPTS_MAX} audits")

    def _check_all(self, *, deep: bool) -> AuditReport:
        started_at, start = self._now_us(), time.monotonic()
        outcome = compare_digests(self._store, self._watermark)
        shards = self._store.keys.shards if deep else [*outcome.different, *outcome.restless]
        audits = self._audit(shards)
        archived = {trade_id: left for audit in audits for trade_id, left in audit.archived.items()}
        moved = [*check_archive(self._archive, archived)] if deep and self._archive.is_here else []
        return AuditReport(
            level="deep" if deep else "digest",
            started_at=started_at,
            duration_s=time.monotonic() - start,
            checked={"shards": self._store.keys.shard_count, "records": sum(a.records for a in audits)},
            findings=tuple(
                sorted([*_digest_findings(outcome), *(f for a in audits for f in a.findings), *moved])
            ),
            undecided=tuple(u for a in audits for u in a.undecided),
        )

    def _check_user(self, user_id: str, *, deep: bool) -> AuditReport:
        started_at, start = self._now_us(), time.monotonic()
        audit = self._shard_audit(self._store.keys.shard_of_user(user_id))
        audit.run_user(user_id, with_journal=deep)
        if deep and self._archive.is_here:
            audit.findings += check_archive(self._archive, audit.archived, user_id=user_id)
        return AuditReport(
            level="deep" if deep else "standard",
            started_at=started_at,
            duration_s=time.monotonic() - start,
            checked={"records": audit.records},
            findings=tuple(sorted(audit.findings)),
            undecided=tuple(audit.undecided),
        )

    def _audit(self, shards: Iterable[int]) -> list[ShardAudit]:
        audits = [self._shard_audit(shard) for shard in shards]
        if audits:
            journaled = newest_versions(self._journal)
            for audit in audits:
                audit.run(journaled)
        return audits

    def _shard_audit(self, shard: int) -> ShardAudit:
        return ShardAudit(self._store, self._watermark, self._journal, shard)


def _digest_findings(outcome: DigestOutcome) -> list[Finding]:
    return [
        Finding(
            rule="digest",
            severity=Severity.CRITICAL,
            subject=f"shard {shard:02x}",
            detail="Redis and the journal count or digest its records differently",
        )
        for shard in outcome.different
    ]
