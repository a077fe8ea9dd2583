"""Doing one part of a run, in whichever process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from tradepool.archive.reading import Archive
from tradepool.audit.archive_audit import read_archive
from tradepool.audit.digest_audit import DigestAudit
from tradepool.audit.open_audit import OpenAudit
from tradepool.audit.parts.bounds import bounded
from tradepool.audit.parts.group_audit import GroupAudit
from tradepool.audit.parts.journal_sift import JournalSift
from tradepool.audit.parts.part import Answer, Kind, Part, Run, SnapshotPin
from tradepool.audit.parts.rows import Row, RowFiles
from tradepool.audit.parts.snapshot_sift import SnapshotSight, look_at_file, sift_snapshot
from tradepool.audit.parts.stages import Answers, doubtful, of_kind
from tradepool.audit.parts.work_folder import WorkFolder
from tradepool.audit.report import Finding
from tradepool.audit.rules.file_rules import BookReport, book, journal_damaged
from tradepool.audit.rules.key_rules import key_ttl, key_type, key_value, unknown_key
from tradepool.audit.rules.registry import Level
from tradepool.audit.venue_audit import VenueAudit
from tradepool.errors import Corrupt
from tradepool.files.segments import active_header
from tradepool.store.inspection import StoredKey
from tradepool.store.key_families import symbol_of
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["PartWork", "UnusableKeys"]

_BOOK_DECODER = msgspec.json.Decoder(BookReport)


class PartWork:
    """Does parts on one store and the files beside the journal at `journal`; `now_us` tells the time."""

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
        self.folder = WorkFolder(journal.parent)

    def do(self, run: Run, part: Part, answers: Answers) -> Answer:
        """What comes of `part`, given the answers of the stages before its own.

        What contradicts itself in a way that no rule tells is a finding: the rest of the audit goes on.

        Raises: Unavailable, Misconfigured; then it can be done again.
        """
        try:
            return bounded(part, self._do(run, part, answers))
        except Corrupt as problem:
            about = f"audit part {part.name}"
            return Answer(
                findings=tuple(key_value(about, str(problem))),
                undecided=(f"{about}, which could not be done",),
            )

    def _do(self, run: Run, part: Part, answers: Answers) -> Answer:
        does: dict[Kind, Callable[[Run, Part, Answers], Answer]] = {
            Kind.SUMS: self._sums,
            Kind.KEYS: self._keys,
            Kind.SEGMENT: self._segment,
            Kind.SNAPSHOT_FILE: self._snapshot_file,
            Kind.SNAPSHOT_ROWS: self._snapshot_rows,
            Kind.ARCHIVE: self._archived,
            Kind.SHARDS: self._shards,
            Kind.OPEN: self._open,
            Kind.VENUE: self._venue,
        }
        return does[part.kind](run, part, answers)

    def _sums(self, run: Run, part: Part, _: Answers) -> Answer:
        sums = DigestAudit(self._store, self._watermark, now_us=self._now_us())
        sums.run()
        books = [_BOOK_DECODER.decode(report) for report in self._store.read_book_check()]
        findings = [
            *sums.findings,
            *(found for told in books for row in told.differences for found in book(row)),
        ]
        undecided = [text for told in books for text in told.untold(self._now_us())]
        pin: SnapshotPin | None = None
        if run.level is Level.DIGEST:
            undecided += [f"shard {shard:02x}, which stood never still" for shard in sums.restless]
        elif run.level is Level.DEEP or sums.different or sums.restless or sums.unreadable:
            findings += self._of_meta()
        if run.level is Level.DEEP:
            sight = SnapshotSight(self._journal, self.folder.fresh(run.run_id, part.name))
            findings, undecided, pin = findings + sight.findings, undecided + sight.undecided, sight.pin
        return Answer(
            findings=tuple(findings),
            undecided=tuple(undecided),
            different=tuple(sums.different),
            restless=tuple(sums.restless),
            stuck=tuple(sums.stuck),
            unreadable=tuple(sums.unreadable),
            snapshot=pin,
        )

    def _of_meta(self) -> Iterator[Finding]:
        """What the store says of itself: a recovery that believed it would refuse, or fill it anew."""
        with contextlib.suppress(Corrupt):
            journal_id = active_header(self._journal)[0].id
            if self._store.journal_id() != journal_id:
                yield from key_value(Keys.meta, f"journal: {self._store.journal_id()}, not {journal_id}")
        count = self._store.stored_shard_count()
        if count != f"{self._store.keys.shard_count}":
            yield from key_value(Keys.meta, f"shard_count: {count}, not {self._store.keys.shard_count}")

    def _keys(self, run: Run, part: Part, _: Answers) -> Answer:
        """All keys; the names of those of users and symbols are kept, for none of these may have records."""
        keys = UnusableKeys()
        folder = self.folder.fresh(run.run_id, part.name)
        rows = RowFiles(folder, run.groups)
        for key in self._store.stored_keys():
            keys.look_at(key)
            if key.expected and (key.user_id is not None or symbol_of(key.name) is not None):
                rows.add(Row(key.name, key.shard))
        shards = tuple(sorted(keys.shards))
        return Answer(
            findings=tuple(keys.findings),
            undecided=tuple(f"shard {shard:02x}, a key of which is unusable" for shard in shards),
            folder=folder.name,
            files=rows.end(),
            unusable_shards=shards,
            unusable_users={shard: tuple(sorted(users)) for shard, users in keys.users.items()},
        )

    def _segment(self, run: Run, part: Part, answers: Answers) -> Answer:
        (sums,) = of_kind(answers, Kind.SUMS)
        shards = self._store.keys.shards if run.level is Level.DEEP else doubtful(answers)
        folder = self.folder.fresh(run.run_id, part.name)
        rows = RowFiles(folder, run.groups)
        try:
            end = JournalSift(self._journal, shards, sums.snapshot).sift(part.number, rows)
        except Corrupt as problem:
            return Answer(findings=tuple(journal_damaged(str(problem))))
        return Answer(folder=folder.name, files=rows.end(), end=end)

    def _snapshot_file(self, run: Run, part: Part, answers: Answers) -> Answer:
        pin, pinned = self._pinned(run, answers)
        (name,) = part.files
        return Answer(findings=tuple(look_at_file(pinned, name, pin)))

    def _snapshot_rows(self, run: Run, part: Part, answers: Answers) -> Answer:
        _, pinned = self._pinned(run, answers)
        folder = self.folder.fresh(run.run_id, part.name)
        rows = RowFiles(folder, run.groups)
        findings = sift_snapshot(pinned, part, rows, self._store.keys)
        return Answer(findings=tuple(findings), folder=folder.name, files=rows.end())

    def _pinned(self, run: Run, answers: Answers) -> tuple[SnapshotPin, Path]:
        """The snapshot of the run, and where its files are."""
        (sums,) = of_kind(answers, Kind.SUMS)
        assert sums.snapshot is not None
        return sums.snapshot, self.folder.of_run(run.run_id) / sums.snapshot.folder

    def _archived(self, run: Run, part: Part, _: Answers) -> Answer:
        folder = self.folder.fresh(run.run_id, part.name)
        rows = RowFiles(folder, run.groups)
        shard_of = self._store.keys.shard_of_user
        damaged = read_archive(
            self._archive,
            [self._archive.folder.path / name for name in part.files],
            lambda row: rows.add(Row(row.trade_id, shard_of(row.user_id), row.version, row.digest)),
        )
        return Answer(
            findings=tuple(damaged.findings),
            undecided=tuple(damaged.undecided),
            folder=folder.name,
            files=rows.end(),
            damaged_days=tuple(sorted(damaged.days)),
        )

    def _shards(self, run: Run, part: Part, answers: Answers) -> Answer:
        audit = GroupAudit(
            self._store,
            self._watermark,
            self._journal,
            self._archive,
            self.folder.of_run(run.run_id),
            answers,
            now_us=self._now_us(),
        )
        return audit.run(part, is_deep=run.level is Level.DEEP)

    def _open(self, _: Run, part: Part, __: Answers) -> Answer:
        findings: list[Finding] = []
        undecided: list[str] = []
        records = 0
        for shard in part.shards:
            audit = OpenAudit(self._store, shard, now_us=self._now_us())
            audit.run()
            findings, undecided = findings + audit.findings, undecided + audit.undecided
            records += audit.records
        return Answer(findings=tuple(findings), undecided=tuple(undecided), records=records)

    def _venue(self, run: Run, *_: object) -> Answer:
        assert run.venue is not None
        audit = VenueAudit(self._store, run.venue)
        return Answer(findings=tuple(audit.findings()), undecided=tuple(audit.undecided))


class UnusableKeys:
    """Keys of a wrong type hide what they hold: whom they concern is left out of the rest."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.shards: set[int] = set()
        self.users: dict[int, set[str]] = {}

    def look_at(self, key: StoredKey) -> None:
        """Check the key, and note whom it concerns if it cannot be used."""
        self.findings += key_ttl(key)
        self.findings += unknown_key(key)
        found = key_type(key)
        self.findings += found
        if found and key.user_id is None and key.name not in (Keys.meta, Keys.journal):
            self.shards.add(key.shard)
        elif found and key.user_id is not None:
            self.users.setdefault(key.shard, set()).add(key.user_id)
