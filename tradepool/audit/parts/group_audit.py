"""One group of shards, when the files are sifted: its records, and what snapshot and archive have of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tradepool.archive.parts import Row as ArchiveRow
from tradepool.archive.reading import Archive
from tradepool.audit.archive_audit import ArchiveComparison, check_archive
from tradepool.audit.parts.journal_sift import rows_since
from tradepool.audit.parts.part import Answer, Kind, Part
from tradepool.audit.parts.rows import Row, read_rows
from tradepool.audit.parts.snapshot_comparison import SnapshotComparison
from tradepool.audit.parts.stages import Answers, of_kind
from tradepool.audit.report import Finding
from tradepool.audit.rules.file_rules import journal_damaged
from tradepool.audit.shard_audit import Named, ShardAudit
from tradepool.errors import Corrupt
from tradepool.files.point import Place
from tradepool.files.reading import Latest, holds_place
from tradepool.model.archived import Archived
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["GroupAudit"]

_NO_POSITION = ""
_CUT_BACK = "the journal, whose end is another one than when it was read"


class GroupAudit:
    """The audit of a group of shards as of `now_us` (µs), whose rows are in `folder`.

    Memory: some 300 bytes for each record of the group and as much for one of the snapshot and of the
    archive, and what `ShardAudit` needs of one shard at a time.
    """

    def __init__(
        self,
        store: RedisStore,
        watermark: Watermark,
        journal: Path,
        archive: Archive,
        folder: Path,
        answers: Answers,
        *,
        now_us: int,
    ) -> None:
        self._store = store
        self._watermark = watermark
        self._journal = journal
        self._archive = archive
        self._folder = folder
        self._answers = answers
        self._now_us = now_us
        self._findings: list[Finding] = []
        self._undecided: list[str] = []
        self._records = 0
        self._archived: dict[str, Archived] = {}
        self._newest: dict[int, dict[str, Latest]] = {}
        self._named: defaultdict[int, Named] = defaultdict(Named)
        self._end: Place | None = None

    def run(self, part: Part, *, is_deep: bool) -> Answer:
        """Compare everything of the part's shards. Raises: Unavailable, Corrupt."""
        is_known = self._read_journal(part, is_deep=is_deep)
        for row in self._rows(Kind.KEYS, part):
            self._named[row.shard].note(row.record_id)
        for shard in part.shards:
            self._audit(shard, is_known=is_known)
        if is_deep and self._archive.is_here:
            self._compare_archive(part)
        return Answer(findings=tuple(self._findings), undecided=tuple(self._undecided), records=self._records)

    def _read_journal(self, part: Part, *, is_deep: bool) -> bool:
        """The newest versions of the group's records in the journal; whether they are known."""
        segments = of_kind(self._answers, Kind.SEGMENT)
        ends = [segment.end for segment in segments if segment.end is not None]
        if len(ends) < len(segments):
            # Whoever has read the damaged segment says where.
            return False
        snapshot = self._snapshot(part) if is_deep else None
        for row in self._rows(Kind.SEGMENT, part):
            if snapshot is not None:
                snapshot.look(row, self._newest)
            self._note(row)
        if snapshot is not None:
            self._findings += snapshot.findings(self._newest)
        return self._read_on(part, max(ends, key=lambda end: end.segment))

    def _read_on(self, part: Part, end: Place) -> bool:
        """What has been journaled since the segments were sifted."""
        self._end = end
        try:
            for row, place in rows_since(self._journal, end, part.shards):
                self._note(row)
                self._end = place
        except Corrupt as problem:
            if holds_place(self._journal, end):
                self._findings += journal_damaged(str(problem))
            else:
                # Its owner takes back what could not be fsynced; damage is what the next audit finds there.
                self._undecided.append(_CUT_BACK)
            return False
        return True

    def _note(self, row: Row) -> None:
        latest = Latest(row.version, row.digest, _NO_POSITION)
        self._newest.setdefault(row.shard, {})[row.record_id] = latest

    def _snapshot(self, part: Part) -> SnapshotComparison | None:
        """The records of the snapshot, if its files are as they should be."""
        (sums,) = of_kind(self._answers, Kind.SUMS)
        looks = [*of_kind(self._answers, Kind.SNAPSHOT_FILE), *of_kind(self._answers, Kind.SNAPSHOT_ROWS)]
        if sums.snapshot is None or any(look.findings for look in looks):
            return None
        return SnapshotComparison(self._rows(Kind.SNAPSHOT_ROWS, part))

    def _rows(self, kind: Kind, part: Part) -> Iterator[Row]:
        for answer in of_kind(self._answers, kind):
            if part.number in answer.files:
                yield from read_rows(self._folder / answer.folder, part.number, answer.files[part.number])

    def _audit(self, shard: int, *, is_known: bool) -> None:
        (sums,) = of_kind(self._answers, Kind.SUMS)
        audit = ShardAudit(
            self._store,
            self._watermark,
            self._journal,
            shard,
            now_us=self._now_us,
            stuck=shard in {*sums.stuck, *sums.unreadable},
            sums_differ=shard in sums.different,
        )
        unusable = [
            user for keys in of_kind(self._answers, Kind.KEYS) for user in keys.unusable_users.get(shard, ())
        ]
        journaled = self._newest.pop(shard, {})
        audit.run(journaled if is_known else None, self._end, unusable=unusable, named=self._named[shard])
        self._records += audit.records
        self._findings += audit.findings
        self._undecided += audit.undecided
        self._archived.update(audit.archived)

    def _compare_archive(self, part: Part) -> None:
        """What was not found may have been archived since: the archive is asked for that again."""
        comparison = ArchiveComparison(self._archived)
        damaged: set[str] = set()
        for answer in of_kind(self._answers, Kind.ARCHIVE):
            damaged.update(answer.damaged_days)
        for row in self._rows(Kind.ARCHIVE, part):
            self._findings += comparison.look(ArchiveRow(row.record_id, row.version, row.digest))
        missing = comparison.missing(damaged)
        if missing:
            days = {left.day for left in missing.values()}
            self._findings += check_archive(self._archive, missing, days=days)
