"""The audits a pool offers: check_all_trades and check_trades (the old modules of those names)."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tradepool.archive.reading import Archive
from tradepool.audit.archive_audit import check_archive
from tradepool.audit.digest_audit import DigestAudit
from tradepool.audit.file_rules import BookReport, book, digest, journal_damaged
from tradepool.audit.journal_audit import JournalAudit
from tradepool.audit.key_rules import key_ttl, key_type, key_value
from tradepool.audit.open_audit import OpenAudit
from tradepool.audit.registry import Level
from tradepool.audit.report import AuditReport, Finding
from tradepool.audit.shard_audit import ShardAudit, newest_of_user
from tradepool.audit.venue_audit import VenueAudit, VenueSnapshot
from tradepool.errors import Corrupt, InvalidQuery, Misconfigured, StoreUnavailable
from tradepool.files.segments import active_header
from tradepool.model.archived import Archived
from tradepool.placing import known_id
from tradepool.store.inspection import StoredKey
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["Audits"]

_ATTEMPTS_MAX = 3
_CLOSER_RULES = {digest.name, key_value.name}
"""What the digest level says of a whole shard: its records say more."""
_BOOK_DECODER = msgspec.json.Decoder(BookReport)


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

    def check_all_trades(
        self,
        *,
        deep: bool = False,
        repair: bool = False,
        level: str | None = None,
        venue: object = None,
    ) -> AuditReport:
        """Audit the pool at a level of `Level`; without one at the digest level, or (deep) at the deepest.

        `venue` is what venues tell of positions and balances, in the form of `VenueSnapshot`.

        Raises: Misconfigured for `repair`, which this release does not have; InvalidQuery for an unknown
        level and for a `venue` that cannot be read; StoreUnavailable, JournalUnavailable.
        """
        if repair:
            raise Misconfigured(
                "this release cannot repair; `tradepool recover` rebuilds Redis from the journal"
            )
        wanted = _level(level, deep=deep)
        told = None if venue is None else VenueSnapshot.read(venue)
        report = self._undisturbed(lambda: self._run(_Run(self._now_us(), wanted), told))
        self._store.write_last_audit(msgspec.json.encode(report.to_dict()))
        return report

    def watch(self) -> AuditReport:
        """The digest level; where the sums of a shard differ, at once the standard level in its place.

        Raises: as `check_all_trades`.
        """
        report = self.check_all_trades(level=Level.DIGEST)
        if report.counts.keys() & _CLOSER_RULES:
            return self.check_all_trades(level=Level.STANDARD)
        return report

    def last_report(self) -> dict[str, Any] | None:
        """The last report of `check_all_trades`, from whichever process; None before the first."""
        value = self._store.read_last_audit()
        return None if value is None else msgspec.json.decode(value, type=dict[str, Any])

    def check_trades(self, user_id: str, *, deep: bool = True) -> AuditReport:
        """One user's records against rules, indexes, counters and keys, and (deep) the journal."""
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

    def _run(self, run: _Run, told: VenueSnapshot | None) -> AuditReport:
        shards = self._store.keys.shards
        run.checked["shards"], run.checked["records"] = len(shards), 0
        sums = DigestAudit(self._store, self._watermark, now_us=run.started_at)
        sums.run()
        run.findings += sums.findings
        run.findings += self._of_book()
        if run.level is Level.DIGEST:
            run.undecided += [f"shard {shard:02x}, which stood never still" for shard in sums.restless]
        elif run.level is Level.STANDARD:
            doubtful = [*sums.different, *sums.restless, *sums.unreadable]
            self._audit_shards(run, doubtful, _Keys(), sums)
            self._audit_open(run, [shard for shard in shards if shard not in doubtful])
        else:
            keys = _Keys(self._store.stored_keys())
            run.findings += keys.findings
            archived = self._audit_shards(run, shards, keys, sums)
            if self._archive.is_here:
                run.findings += check_archive(self._archive, archived)
        if told is not None:
            audit = VenueAudit(self._store, told)
            run.findings += audit.findings()
            run.undecided += audit.undecided
        return run.report()

    def _of_book(self) -> Iterator[Finding]:
        """What the last check of the book of open positions found."""
        for report in self._store.read_book_check():
            for row in _BOOK_DECODER.decode(report).differences:
                yield from book(row)

    def _of_meta(self) -> Iterator[Finding]:
        """What the store says of itself: a recovery that believed it would refuse, or fill it anew."""
        with contextlib.suppress(Corrupt):
            journal_id = active_header(self._journal)[0].id
            if self._store.journal_id() != journal_id:
                yield from key_value(Keys.meta, f"journal: {self._store.journal_id()}, not {journal_id}")
        count = self._store.stored_shard_count()
        if count != f"{self._store.keys.shard_count}":
            yield from key_value(Keys.meta, f"shard_count: {count}, not {self._store.keys.shard_count}")

    def _audit_shards(
        self, run: _Run, shards: Iterable[int], keys: _Keys, sums: DigestAudit
    ) -> dict[str, Archived]:
        """Every record of the shards; what is left of archived trades, by id. A shard's state goes."""
        archived: dict[str, Archived] = {}
        usable = [shard for shard in shards if shard not in keys.unusable_shards]
        run.undecided += [f"shard {shard:02x}, a key of which is unusable" for shard in keys.unusable_shards]
        if not usable:
            return archived
        run.findings += self._of_meta()
        journal = JournalAudit(self._journal)
        journal.run()
        run.findings += journal.findings
        run.undecided += journal.undecided
        for shard in usable:
            audit = self._shard_audit(shard, run, sums)
            audit.run(journal.newest, unusable=keys.unusable_users[shard])
            run.take(audit)
            archived.update(audit.archived)
        return archived

    def _audit_open(self, run: _Run, shards: Iterable[int]) -> None:
        for shard in shards:
            audit = OpenAudit(self._store, shard, now_us=run.started_at)
            audit.run()
            run.take(audit)

    def _check_user(self, user_id: str, *, deep: bool) -> AuditReport:
        run = _Run(self._now_us(), Level.DEEP if deep else Level.STANDARD)
        shard = self._store.keys.shard_of_user(user_id)
        keys = _Keys(self._store.keys_of_user(user_id))
        run.findings += keys.findings
        if keys.unusable_shards or keys.unusable_users:
            run.undecided.append(f"user {user_id}, a key of whom is unusable")
            return run.report()
        journaled = None
        if deep:
            try:
                journaled = newest_of_user(self._journal, shard, user_id)
            except Corrupt as problem:
                run.findings += journal_damaged(str(problem))
        audit = self._shard_audit(shard, run)
        audit.run_user(user_id, journaled)
        run.take(audit)
        if deep and self._archive.is_here:
            run.findings += check_archive(self._archive, audit.archived, user_id=user_id)
        return run.report()

    def _shard_audit(self, shard: int, run: _Run, sums: DigestAudit | None = None) -> ShardAudit:
        return ShardAudit(
            self._store,
            self._watermark,
            self._journal,
            shard,
            now_us=run.started_at,
            stuck=sums is not None and shard in {*sums.stuck, *sums.unreadable},
            sums_differ=sums is not None and shard in sums.different,
        )


class _Run:
    """One audit under way: what it has found so far."""

    def __init__(self, started_at: int, level: Level) -> None:
        self.started_at = started_at
        self.level = level
        self.checked = {"records": 0}
        self.findings: list[Finding] = []
        self.undecided: list[str] = []
        self._start = time.monotonic()

    def take(self, audit: ShardAudit | OpenAudit) -> None:
        """Add what an audit of one shard found."""
        self.checked["records"] += audit.records
        self.findings += audit.findings
        self.undecided += audit.undecided

    def report(self) -> AuditReport:
        """What was found; the same finding by two ways is one."""
        return AuditReport(
            level=self.level,
            started_at=self.started_at,
            duration_s=time.monotonic() - self._start,
            checked=self.checked,
            findings=tuple(sorted(set(self.findings))),
            undecided=tuple(self.undecided),
        )


class _Keys:
    """Keys of a wrong type hide what they hold: whom they concern is left out of the rest."""

    def __init__(self, keys: Iterable[StoredKey] = ()) -> None:
        self.findings: list[Finding] = []
        self.unusable_shards: set[int] = set()
        self.unusable_users: defaultdict[int, set[str]] = defaultdict(set)
        for key in keys:
            self.findings += key_ttl(key)
            found = key_type(key)
            self.findings += found
            if found and key.user_id is None:
                self.unusable_shards.add(key.shard)
            elif found and key.user_id is not None:
                self.unusable_users[key.shard].add(key.user_id)


def _level(name: str | None, *, deep: bool) -> Level:
    if name is None:
        return Level.DEEP if deep else Level.DIGEST
    try:
        return Level(name)
    except ValueError:
        raise InvalidQuery("no audit level", field="level", value=name, cure=", ".join(Level)) from None
