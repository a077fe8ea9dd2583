"""Groups of one segment: where they end, what is torn, what is damaged.

An entry counts once the commit line behind it is whole, and a commit line is proven by the chained
checksum. In the active segment what stands after the last commit is a torn tail: the rest of a write
that nobody confirmed. It is not read. A finished segment has none: it must end where the next one says.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from tradepool.errors import ChecksumMismatch, JournalUnavailable, SequenceGap
from tradepool.files.compression import InflateError
from tradepool.files.lines import (
    COMMIT_PREFIX,
    SUFFIX_BYTES,
    Commit,
    JournalLine,
    decode,
    next_crc,
    stored_crc,
    suffix,
)
from tradepool.files.point import JournalPoint, Place
from tradepool.files.segments import Segment, open_segment

__all__ = ["Damage", "Group", "Scan", "damage_error"]

_PART_BYTES = 1 << 20


class Group(NamedTuple):
    """A committed group: its undecoded entry lines, its commit, and the place after it."""

    lines: list[bytes]
    commit: Commit
    end: Place

    def entries(self) -> Iterator[JournalLine]:
        """The entries, decoded."""
        return (decode(line, JournalLine) for line in self.lines)


class Damage(NamedTuple):
    """What is wrong with a segment: the byte where the line begins, and the checksum before it.

    `gap` says what is missing there; empty where something is there that was not written.
    """

    at: int
    chained: int
    gap: str = ""


class Scan:
    """The groups of `segment` that stand after `start`, in order, checked.

    `end` is how a finished segment ended, None for the active one. After the last group `place` is the
    place behind it, and `damage` what ended the reading, if anything did.

    Raises: ChecksumMismatch when no line ends at `start`, JournalUnavailable.
    """

    def __init__(self, segment: Segment, start: Place, end: JournalPoint | None) -> None:
        self._segment = segment
        self._end = end
        self.place = start
        self.damage: Damage | None = None
        self._is_unreadable = False

    def __iter__(self) -> Iterator[Group]:
        at, crc, seq = self.place.offset, self.place.crc, self.place.seq
        lines: list[bytes] = []
        for line in self._lines():
            after = next_crc(line, crc)
            if after is None:
                self._stop_at(line, Damage(at, crc))
                return
            if not line.startswith(COMMIT_PREFIX):
                seq += 1
                if not line.startswith(b'{"q":%d,' % seq):
                    self.damage = Damage(at, crc, f"entry {seq} is missing here")
                    return
                at, crc = at + len(line), after
                lines.append(line)
                continue
            at, crc = at + len(line), after
            commit = decode(line, Commit)
            self.place = Place(segment=self._segment.header.segment, offset=at, crc=crc, seq=commit.seq)
            yield Group(lines, commit, self.place)
            lines = []
        if self._is_unreadable:
            self.damage = Damage(at, crc)
        elif self._end is not None:
            self._check_end(Damage(at, crc))

    def _lines(self) -> Iterator[bytes]:
        """The lines from the start on; they end early where a compressed file is damaged."""
        try:
            self.seek()
            yield from self._segment.file
        except InflateError:
            self._is_unreadable = True
        except OSError as problem:
            raise JournalUnavailable(f"{self._segment.path} cannot be read: {problem.strerror}") from problem

    def seek(self) -> None:
        """Go from behind the header to the start, where a line must end that claims the right checksum.

        Raises: ChecksumMismatch when none does; InflateError, OSError.
        """
        file, header_end = self._segment.file, self._segment.start
        if (self.place.offset, self.place.crc) == (header_end.offset, header_end.crc):
            return
        before = max(header_end.offset, self.place.offset - SUFFIX_BYTES)
        if file.seekable():
            file.seek(before)
        else:
            _skip(file, before - header_end.offset)
        if file.read(max(0, self.place.offset - before)) != suffix(self.place.crc):
            raise ChecksumMismatch(
                f"{self._segment.path}: the line that ended at byte {self.place.offset} is not there; "
                "read from the start, or restore the file"
            )

    def _stop_at(self, line: bytes, damage: Damage) -> None:
        """`line` is not whole: a torn tail or damage, and in a finished segment always the latter."""
        if self._end is None:
            if _commit_follows(self._segment.file, line, damage):
                self.damage = damage
        elif line.endswith(b"\n") or damage.at + len(line) >= self._end.offset:
            self.damage = damage
        else:
            self._check_end(damage)

    def _check_end(self, last: Damage) -> None:
        """A finished segment ends where the next one says. `last` is where its last whole line ends."""
        assert self._end is not None
        if last.at < self._end.offset:
            gap = f"the file was cut short here, at byte {last.at} of {self._end.offset}"
            self.damage = last._replace(gap=gap)
        elif (self.place.offset, self.place.crc) != (self._end.offset, self._end.crc):
            self.damage = last


def damage_error(log: Path, number: int, damage: Damage) -> ChecksumMismatch | SequenceGap:
    """The error for damage in segment `number`, with its line; counted only now that it is needed."""
    with open_segment(log, number) as segment:
        where = f"{segment.path}:{line_number(segment, damage.at)}"
    if damage.gap:
        return SequenceGap(f"{where}: {damage.gap} (segment {number}); restore the file from a backup")
    return ChecksumMismatch(
        f"{where}: damaged (segment {number}), and committed lines follow; restore the file from a backup"
    )


def _skip(file: BufferedReader, count: int) -> None:
    while count > 0 and (part := file.read(min(count, _PART_BYTES))):
        count -= len(part)


def _commit_follows(file: BufferedReader, damaged: bytes, damage: Damage) -> bool:
    """Whether a whole commit line stands after the damage, so that the damaged part counted once.

    A commit line is proven by the checksum that the line before it claims, or, when that claim is
    what was damaged, by the one that the bodies before it come to. A damaged line end may have glued
    the two lines together.
    """
    chained, before, line = damage.chained, b"", damaged
    while line:
        begin = line.rfind(COMMIT_PREFIX)
        if begin >= 0:
            claimed = stored_crc(before + line[:begin])
            seeds = (chained, chained if claimed is None else claimed)
            if any(next_crc(line[begin:], seed) is not None for seed in seeds):
                return True
        chained = zlib.crc32(line[:-SUFFIX_BYTES], chained)
        before = line[-SUFFIX_BYTES:]
        line = file.readline()
    return False


def line_number(segment: Segment, offset: int) -> int:
    """The number of the line that begins at `offset`, or of that in which a compressed file ends."""
    number, left = 2, offset - segment.start.offset
    with contextlib.suppress(InflateError):
        while left > 0 and (part := segment.file.read1(min(left, _PART_BYTES))):
            number += part.count(b"\n")
            left -= len(part)
    return number
