"""The whole journal, read and proven: every line, every record's digest, every finished segment's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from tradepool.errors import ChecksumMismatch
from tradepool.files.checkpoint import check_reached, load_checkpoint, saved_checkpoint
from tradepool.files.lines import JournalLine
from tradepool.files.point import JournalPoint
from tradepool.files.reading import Group, read_groups
from tradepool.files.segments import active_header, check_present, ending_of, open_segment
from tradepool.model.codec import digest_of

__all__ = ["Progress", "VerifyReport", "verify_log"]

Progress = Callable[[int, int], None]
"""Called with the bytes read so far, and with those there are in all."""

_PART_BYTES = 1 << 20


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """A journal that is whole: its id, and how much of everything was found in it.

    `lines` counts entries, `bytes` what they are uncompressed, headers and commits included.
    `torn_bytes` stand after the last commit: a write that nobody confirmed, or one under way.
    """

    journal: str
    segments: int
    lines: int
    commits: int
    bytes: int
    torn_bytes: int


def verify_log(path: Path, progress: Progress | None = None) -> VerifyReport:
    """Read the journal whose active segment is `path`, all of it, while its owner may go on writing.

    Checked are every line's checksum and number, the digest of every record, and for each finished
    segment that it is, byte for byte, the one its successor was begun after. Memory is bounded by one
    group.

    Raises: ChecksumMismatch and SequenceGap naming file and line, JournalUnavailable, Misconfigured.
    """
    return _Verification(path, progress).run()


class _Verification:
    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._path = path
        self._progress = progress
        self._line = 1
        self._lines = self._commits = 0
        self._bytes_before = self._bytes_all = 0

    def run(self) -> VerifyReport:
        header, _ = active_header(self._path)
        load_checkpoint(self._path, header.id)
        # Taken before reading: its owner may go on.
        saved = saved_checkpoint(self._path, header.id)
        check_present(self._path, 1)
        self._bytes_all = self._size(header.segment)
        with open_segment(self._path, 1) as first:
            point = first.start
        point = self._read_on(point)
        while ending_of(self._path, point.segment) is not None:
            # Finished by now, so this reads all of it, also what was written since the first look.
            read = self._read_on(point)
            point = self._crossed(read, point.segment + 1) if read.segment == point.segment else read
        check_reached(self._path, saved, point)
        return VerifyReport(
            journal=header.id,
            segments=point.segment,
            lines=self._lines,
            commits=self._commits,
            bytes=self._bytes_before + point.offset,
            torn_bytes=max(0, self._path.stat().st_size - point.offset),
        )

    def _read_on(self, point: JournalPoint) -> JournalPoint:
        """Look at every group after `point`; where the journal stands after the last."""
        for group in read_groups(self._path, since=point):
            point = self._crossed(point, group.end.segment)
            self._look_at(group)
            point = point.after(group.end, group.commit, group.entries())
            self._tell(point)
        return point

    def _size(self, active: int) -> int:
        """How many bytes, uncompressed, the journal has at this moment."""
        endings = (ending_of(self._path, number) for number in range(1, active))
        return sum(e[0].point.offset for e in endings if e is not None) + self._path.stat().st_size

    def _crossed(self, point: JournalPoint, segment: int) -> JournalPoint:
        """Where the journal stands in `segment`, once all before is finished at `point` and proven."""
        while point.segment < segment:
            ending = ending_of(self._path, point.segment)
            assert ending is not None, "a segment with a successor has ended"
            if ending[0].point != point:
                raise ChecksumMismatch(
                    f"{self._name(point.segment + 1)}:1: the header does not say how segment {point.segment} "
                    "ended; restore both from one backup"
                )
            self._check_hash(point.segment, ending[0].sha256)
            self._bytes_before += point.offset
            self._line = 1
            point = ending[1]
        return point

    def _check_hash(self, number: int, expected: str) -> None:
        with open_segment(self._path, number) as segment:
            found = hashlib.sha256(segment.line)
            while part := segment.file.read(_PART_BYTES):
                found.update(part)
        if found.hexdigest() != expected:
            raise ChecksumMismatch(
                f"{segment.path}:1-{self._line}: segment {number} was rewritten: its checksums agree, but it "
                f"is not the one that segment {number + 1} was begun after; restore it from a backup"
            )

    def _look_at(self, group: Group) -> None:
        for entry in group.entries():
            self._line += 1
            if digest_of(bytes(entry.record)) != entry.digest:
                raise self._wrong_digest(entry, group.end.segment)
        self._line += 1
        self._lines += len(group.lines)
        self._commits += 1

    def _wrong_digest(self, entry: JournalLine, segment: int) -> ChecksumMismatch:
        return ChecksumMismatch(
            f"{self._name(segment)}:{self._line}: record {entry.record_id!r} version {entry.version} is not "
            "what its digest says; restore the file from a backup"
        )

    def _name(self, segment: int) -> Path:
        with open_segment(self._path, segment) as opened:
            return opened.path

    def _tell(self, point: JournalPoint) -> None:
        if self._progress is not None:
            self._progress(self._bytes_before + point.offset, self._bytes_all)
