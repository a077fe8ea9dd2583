"""The audits a pool offers: check_all_trades and check_trades (the old modules of those names)."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tradepool.archive.reading import Archive
from tradepool.audit.archive_audit import check_archive
from tradepool.audit.finishing import Finishing, Repairs, Reports
from tradepool.audit.parts.fleet_runs import FleetRuns, Send
from tradepool.audit.parts.part import Run
from tradepool.audit.parts.run_board import Ended, RunningAudit
from tradepool.audit.parts.runner import ATTEMPTS_MAX, Progress, Runner, recovered_each_time
from tradepool.audit.parts.stages import Stages
from tradepool.audit.parts.work import PartWork, UnusableKeys
from tradepool.audit.report import AuditReport, Finding
from tradepool.audit.rules.file_rules import digest, journal_damaged
from tradepool.audit.rules.key_rules import key_value
from tradepool.audit.rules.registry import Level, known_level
from tradepool.audit.shard_audit import ShardAudit, newest_of_user
from tradepool.audit.venue_audit import VenueSnapshot
from tradepool.errors import Corrupt, InvalidQuery, StoreUnavailable
from tradepool.files.reading import Latest
from tradepool.placing import known_id
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["Audits"]

_CLOSER_RULES = {digest.name, key_value.name}
"""What the digest level says of a whole shard: its records say more."""
_RUN_ID_BYTES = 8
_RUN_ID = re.compile("[0-9A-Za-z-]{1,64}")


class Audits:
    """Audits of one pool; they only read, unless a repair is asked for."""

    def __init__(
        self,
        store: RedisStore,
        watermark: Watermark,
        journal: Path,
        archive: Archive,
        now_us: Callable[[], int],
        *,
        reports: Reports,
        repairs: Repairs,
    ) -> None:
        self._store = store
        self._watermark = watermark
        self._journal = journal
        self._archive = archive
        self._now_us = now_us
        self._finishing = Finishing(repairs, reports)
        work = PartWork(store, watermark, journal, archive, self._now)
        stages = Stages(journal, archive.folder)
        self._runner = Runner(store, stages, work, self._now)
        self._fleet = FleetRuns(store, self._runner, stages, work, self._finishing, self._now)

    def check_all_trades(
        self,
        *,
        deep: bool = False,
        repair: bool = False,
        level: str | None = None,
        venue: object = None,
        progress: Progress | None = None,
    ) -> AuditReport:
        """Audit the pool at a level of `Level`; without one at the digest level, or (deep) at the deepest.

        `venue` is what venues tell of positions and balances, in the form of `VenueSnapshot`. The report's
        `repairs` are what would be written, or (repair) what was.

        Raises: InvalidQuery for an unknown level, for one that `deep` contradicts and for a `venue` that
        cannot be read or tells nothing; StoreUnavailable, JournalUnavailable; above the digest level
        ResourceUnavailable when there is no room for work files, Misconfigured where a file is in the way.
        """
        asked = self._asked(_level(level, deep=deep), repair=repair, venue=venue)
        return self._finishing.kept(self._done(asked, progress))

    def start(
        self,
        run_id: str,
        send: Send,
        *,
        level: str,
        repair: bool = False,
        quarantine: bool = False,
        venue: object = None,
    ) -> None:
        """Begin an audit whose parts others do; what was begun as `run_id` goes on. The digest level is done
        at once.

        `send` has `check_part` called for parts of a run. Raises: as `check_all_trades`.
        """
        _check_run_id(run_id)
        asked = self._asked(
            _level(level, deep=False), repair=repair, quarantine=quarantine, venue=venue, run_id=run_id
        )
        if asked.level is Level.DIGEST:
            self._fleet.end_at_once(run_id, self._finishing.kept(self._done(asked)))
        else:
            self._fleet.start(asked, send)

    def check_part(self, run_id: str, part: str, send: Send) -> None:
        """Do one part of an audit that was started, and what follows; done twice it changes nothing.

        Raises: Unavailable, Misconfigured; then it has to be done again.
        """
        self._fleet.do_part(run_id, part, send)

    def running(self) -> tuple[RunningAudit, ...]:
        """The audits that the fleet is doing, the oldest first."""
        return self._fleet.running()

    def sweep(self) -> None:
        """Tell of audits that were lost, and remove what dead ones have left."""
        self._fleet.sweep()

    def progress(self, run_id: str) -> RunningAudit | Ended | None:
        """How far a started audit is, also when it had to begin again; None: nobody has begun it.

        Raises: InvalidQuery for what cannot be the name of one.
        """
        _check_run_id(run_id)
        for _ in range(ATTEMPTS_MAX):
            # In this order: a run that has ended says so before it leaves the list.
            found = next((run for run in self.running() if run.run_id == run_id), None)
            ended = self._fleet.board.ended(run_id)
            if ended is None:
                return found
            if not ended.successor:
                return ended
            run_id = ended.successor
        return None

    def watch(self, *, quarantine: bool = False) -> AuditReport:
        """The digest level; where the sums of a shard differ, at once the standard level in its place.

        With `quarantine` the trades that nothing may change any more are set apart.

        Raises: as `check_all_trades`.
        """
        report = self._done(self._asked(Level.DIGEST, quarantine=quarantine))
        if report.counts.keys() & _CLOSER_RULES:
            report = self._done(self._asked(Level.STANDARD, quarantine=quarantine))
        return self._finishing.kept(report)

    def last_report(self) -> dict[str, Any] | None:
        """The last report of `check_all_trades`, from whichever process; None before the first."""
        return self._finishing.last()

    def check_trades(self, user_id: str, *, deep: bool = True, repair: bool = False) -> AuditReport:
        """One user's records against rules, indexes, counters and keys, and (deep) the journal.

        Of a user who has none, and whom nothing names, it is an `ok` report of no records.
        """
        known_id("user_id", user_id)
        for _ in range(ATTEMPTS_MAX):
            generation = self._store.generation()
            report = self._of_user(user_id, deep=deep)
            if self._store.generation() == generation:
                return self._finishing.repaired(report, repair=repair, user_id=user_id)
        raise StoreUnavailable(recovered_each_time())

    def _now(self) -> int:
        return self._now_us()

    def _asked(
        self,
        level: Level,
        *,
        repair: bool = False,
        quarantine: bool = False,
        venue: object = None,
        run_id: str | None = None,
    ) -> Run:
        return Run(
            run_id=run_id or secrets.token_hex(_RUN_ID_BYTES),
            level=level,
            started_at=self._now_us(),
            generation="",
            repair=repair,
            quarantine=quarantine,
            venue=None if venue is None else VenueSnapshot.read(venue),
        )

    def _done(self, asked: Run, progress: Progress | None = None) -> AuditReport:
        if asked.level is not Level.DIGEST:
            self.sweep()
        report = self._runner.report(asked, progress)
        return self._finishing.repaired(report, repair=asked.repair, quarantine=asked.quarantine)

    def _of_user(self, user_id: str, *, deep: bool) -> AuditReport:
        started_at, start = self._now_us(), time.monotonic()
        shard = self._store.keys.shard_of_user(user_id)
        findings: list[Finding] = []
        undecided: list[str] = []
        records = 0
        keys = UnusableKeys()
        for key in self._store.keys_of_user(user_id):
            keys.look_at(key)
        findings += keys.findings
        if keys.shards or keys.users:
            undecided.append(f"user {user_id}, a key of whom is unusable")
        else:
            audit = ShardAudit(self._store, self._watermark, self._journal, shard, now_us=started_at)
            journaled, problems = self._journaled(shard, user_id) if deep else (None, [])
            audit.run_user(user_id, journaled)
            findings += [*problems, *audit.findings]
            undecided += audit.undecided
            records = audit.records
            if deep and self._archive.is_here:
                findings += check_archive(self._archive, audit.archived, user_id=user_id)
        return AuditReport(
            level=Level.DEEP if deep else Level.STANDARD,
            started_at=started_at,
            duration_s=time.monotonic() - start,
            checked={"records": records},
            findings=tuple(sorted(set(findings))),
            undecided=tuple(undecided),
        )

    def _journaled(self, shard: int, user_id: str) -> tuple[Mapping[str, Latest] | None, list[Finding]]:
        """What the journal holds of the user; or what is wrong with it."""
        try:
            return newest_of_user(self._journal, shard, user_id), []
        except Corrupt as problem:
            return None, journal_damaged(str(problem))


def _check_run_id(run_id: object) -> None:
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        cure = "letters, digits and dashes, at most 64"
        raise InvalidQuery("no name of an audit", field="run_id", value=run_id, cure=cure)


def _level(name: str | None, *, deep: bool) -> Level:
    if name is None:
        return Level.DEEP if deep else Level.DIGEST
    level = known_level(name)
    if deep and level is not Level.DEEP:
        raise InvalidQuery("deep=True says another", field="level", value=name, cure="give one of the two")
    return level
