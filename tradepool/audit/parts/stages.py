"""Which parts a run has, stage by stage: planned from what the stages before have answered.

The order of the stages is what makes the cut consistent: sums, then the files, and Redis after these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from tradepool.archive.folder import ArchiveFolder
from tradepool.audit.parts.part import Answer, Kind, Part, Run
from tradepool.audit.parts.snapshot_sift import record_files
from tradepool.audit.rules.registry import Level
from tradepool.errors import Corrupt
from tradepool.files.segments import active_header
from tradepool.settings import SEGMENT_BYTES

__all__ = ["STAGES", "Answers", "Stages", "doubtful", "groups_of", "of_kind"]

Answers = Mapping[str, Answer]
"""Part → its answer."""
STAGES = 3
_GROUP_RECORDS = 10_000
"""Records to a group of shards, about: they are in memory together."""
_PIECE_BYTES = SEGMENT_BYTES
_ARCHIVE_FILES = 200
"""Files of the archive to a part, at most."""
_ARCHIVE_BYTES = 32 << 20


def groups_of(shards: Sequence[int], records: int) -> tuple[tuple[int, ...], ...]:
    """The shards in groups of about equal size, for a pool of so many records."""
    count = min(len(shards), -(-records // _GROUP_RECORDS) or 1)
    bounds = [len(shards) * number // count for number in range(count + 1)]
    return tuple(tuple(shards[first:last]) for first, last in pairwise(bounds))


class Stages:
    """The stages of runs on the journal at `journal`, and the archive beside it."""

    def __init__(self, journal: Path, archive: ArchiveFolder) -> None:
        self._journal = journal
        self._archive = archive

    def parts(self, run: Run, stage: int, answers: Answers) -> list[Part]:
        """The parts of a stage, from 0 to `STAGES` − 1, when all stages before it are answered.

        Raises: JournalUnavailable.
        """
        match stage:
            case 0:
                return [Part(kind=Kind.SUMS)]
            case 1:
                return list(self._sifting(run, answers))
            case _:
                return list(_comparing(run, answers))

    def forecast(self, run: Run) -> int:
        """How many parts a run will have, about, if nothing is wrong. Raises: JournalUnavailable."""
        if run.level is Level.DIGEST:
            return 1
        files = list(self._sifting(run, {})) if run.level is Level.DEEP else []
        return 1 + len(files) + len(run.groups)

    def _sifting(self, run: Run, answers: Answers) -> Iterator[Part]:
        if run.level is Level.DIGEST or (run.level is Level.STANDARD and not doubtful(answers)):
            return
        if run.level is Level.DEEP:
            # It takes longest, and cannot be divided: nobody should wait for it in the end.
            yield Part(kind=Kind.KEYS)
        yield from self._segments()
        if run.level is Level.DEEP:
            yield from _of_snapshot(answers)
            yield from self._of_archive()

    def _segments(self) -> Iterator[Part]:
        try:
            last = active_header(self._journal)[0].segment
        except Corrupt:
            # Whoever reads the first one finds that.
            last = 1
        for number in range(1, last + 1):
            yield Part(kind=Kind.SEGMENT, number=number)

    def _of_archive(self) -> Iterator[Part]:
        files: list[str] = []
        size = number = 0
        for path in self._archive.parts():
            files.append(str(path.relative_to(self._archive.path)))
            with suppress(FileNotFoundError):
                # Whoever reads it tells that it is gone.
                size += path.stat().st_size
            if len(files) >= _ARCHIVE_FILES or size >= _ARCHIVE_BYTES:
                yield Part(kind=Kind.ARCHIVE, number=number, files=tuple(files))
                files, size, number = [], 0, number + 1
        if files:
            yield Part(kind=Kind.ARCHIVE, number=number, files=tuple(files))


def doubtful(answers: Answers) -> set[int]:
    """The shards that the standard level reads record by record."""
    return {
        shard
        for answer in of_kind(answers, Kind.SUMS)
        for shard in (*answer.different, *answer.restless, *answer.unreadable)
    }


def of_kind(answers: Answers, kind: Kind) -> list[Answer]:
    """The answers of the parts of a kind, in order of these."""
    return [answer for name, answer in sorted(answers.items()) if name.rpartition("-")[0] == kind]


def _of_snapshot(answers: Answers) -> Iterator[Part]:
    for answer in of_kind(answers, Kind.SUMS):
        if answer.snapshot is None:
            continue
        for number, name in enumerate(answer.snapshot.files):
            yield Part(kind=Kind.SNAPSHOT_FILE, number=number, files=(name,))
        pieces = [
            (name, begin)
            for name in record_files(answer.snapshot)
            for begin in range(0, answer.snapshot.files[name].bytes, _PIECE_BYTES)
        ]
        for number, (name, begin) in enumerate(pieces):
            yield Part(
                kind=Kind.SNAPSHOT_ROWS, number=number, files=(name,), begin=begin, end=begin + _PIECE_BYTES
            )


def _comparing(run: Run, answers: Answers) -> Iterator[Part]:
    if run.level is Level.DEEP:
        unusable = {shard for answer in of_kind(answers, Kind.KEYS) for shard in answer.unusable_shards}
        yield from _of_groups(Kind.SHARDS, run, lambda shard: shard not in unusable)
    elif run.level is Level.STANDARD:
        closer = doubtful(answers)
        yield from _of_groups(Kind.SHARDS, run, closer.__contains__)
        yield from _of_groups(Kind.OPEN, run, lambda shard: shard not in closer)
    if run.venue is not None:
        yield Part(kind=Kind.VENUE)


def _of_groups(kind: Kind, run: Run, is_wanted: Callable[[int], bool]) -> Iterator[Part]:
    for number, group in enumerate(run.groups):
        shards = tuple(filter(is_wanted, group))
        if shards:
            yield Part(kind=kind, number=number, shards=shards)
