"""Reading a journal: checked line by line, whole groups only, also while its writer goes on appending.

A group is the lines up to and including a commit line. What stands after the last commit is a torn
tail: the rest of a write that nobody confirmed. It is not read. Damage before a commit is an error.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tradepool.errors import ChecksumMismatch, JournalUnavailable, Misconfigured, SequenceGap
from tradepool.files.lines import (
    COMMIT_PREFIX,
    FORMAT,
    SUFFIX_BYTES,
    Commit,
    Header,
    JournalLine,
    decode,
    next_crc,
    stored_crc,
)

__all__ = [
    "Group",
    "Latest",
    "Newest",
    "Place",
    "newest_versions",
    "place_at",
    "read_groups",
    "read_header",
    "read_history",
    "read_lines",
]

_BUFFER_BYTES = 1 << 20
_COUNT_BYTES = 1 << 20


class Place(NamedTuple):
    """A place between two groups: byte offset, chained checksum, number of the entry before it if known."""

    offset: int
    crc: int
    seq: int | None


class Group(NamedTuple):
    """A committed group: its undecoded entry lines, its commit, and the place after it."""

    lines: list[bytes]
    commit: Commit
    end: Place

    def entries(self) -> Iterator[JournalLine]:
        """The entries, decoded."""
        return (decode(line, JournalLine) for line in self.lines)


class Latest(NamedTuple):
    """The newest journaled version of a record."""

    version: int
    digest: str
    position: str


class Newest(NamedTuple):
    """The newest versions by shard and record id, and the byte up to which the journal was read."""

    shards: dict[int, dict[str, Latest]]
    end: int


class _Damage(NamedTuple):
    """A line whose checksum is wrong: where it begins, and the place after the last good commit."""

    at: int
    chained: int
    last_good: Place


def read_header(path: Path) -> tuple[Header, Place]:
    """The journal's header and the place after it.

    Raises: ChecksumMismatch when it is damaged, Misconfigured when it is of another format,
    JournalUnavailable when the file cannot be read.
    """
    with _opened(path) as file:
        line = file.readline()
    crc = next_crc(line, 0)
    if crc is None:
        raise ChecksumMismatch(f"{path}:1: the header is damaged; restore the file from a backup")
    header = decode(line, Header)
    if header.format != FORMAT:
        raise Misconfigured(
            f"{path} has format {header.format}, this release reads {FORMAT}; upgrade tradepool"
        )
    return header, Place(len(line), crc, 0)


def place_at(path: Path, offset: int) -> Place | None:
    """The place at `offset` when a line ends there; None when none does."""
    with _opened(path) as file:
        file.seek(max(0, offset - SUFFIX_BYTES))
        suffix = file.read(SUFFIX_BYTES)
    crc = stored_crc(suffix)
    if crc is None or suffix != b',"c":"%08x"}\n' % crc:
        return None
    return Place(offset, crc, None)


def read_groups(path: Path, start: Place) -> Iterator[Group]:
    """Every committed group after `start`, in order, with checksums and numbers checked.

    Raises: ChecksumMismatch, SequenceGap with file and line; JournalUnavailable when unreadable.
    """
    seen: _Damage | None = None
    place = start
    while (damage := (yield from _scan(path, place))) is not None:
        # Read twice: the writer may have cut a failed write back, and written on, under the first look.
        if damage == seen:
            number = _line_number(path, damage.at)
            raise ChecksumMismatch(f"{path}:{number}: damaged, and committed lines follow; restore the file")
        seen, place = damage, damage.last_good


def read_lines(path: Path, *, from_offset: int = 0) -> Iterator[JournalLine]:
    """Every committed entry in order, from the end of a group at byte `from_offset` (0: from the start).

    Memory is bounded by one group. Raises: as `read_groups`; ChecksumMismatch when no line ends at
    `from_offset`.
    """
    _, start = read_header(path)
    if from_offset:
        found = place_at(path, from_offset)
        if found is None:
            raise ChecksumMismatch(f"{path}: no line ends at byte {from_offset}; read from the start")
        start = found
    for group in read_groups(path, start):
        yield from group.entries()


def read_history(path: Path, record_id: str) -> Iterator[JournalLine]:
    """Every journaled version of one record, oldest first. Raises: as `read_groups`."""
    quoted = b'"id":' + msgspec.json.encode(record_id)
    for line in _filtered(path, lambda line: quoted in line):
        entry = decode(line, JournalLine)
        if entry.record_id == record_id:
            yield entry


def newest_versions(path: Path) -> Newest:
    """The newest journaled version of every record, in one pass. Memory grows with the records.

    Raises: as `read_groups`.
    """
    shards: dict[int, dict[str, Latest]] = {}
    _, end = read_header(path)
    for group in read_groups(path, end):
        for entry in group.entries():
            latest = Latest(entry.version, entry.digest, entry.position)
            shards.setdefault(entry.shard, {})[entry.record_id] = latest
        end = group.end
    return Newest(shards, end.offset)


def _filtered(path: Path, wanted: Callable[[bytes], bool]) -> Iterator[bytes]:
    _, start = read_header(path)
    for group in read_groups(path, start):
        yield from filter(wanted, group.lines)


def _scan(path: Path, start: Place) -> Generator[Group, None, _Damage | None]:
    """Yield groups; return the damage that ended the scan, None when only a torn tail is left."""
    good = start
    lines: list[bytes] = []
    at, crc, seq = start
    with _opened(path) as file:
        file.seek(at)
        for line in file:
            after = next_crc(line, crc)
            if after is None:
                damage = _Damage(at, crc, good)
                return damage if _commit_follows(file, line, damage) else None
            at += len(line)
            crc = after
            if not line.startswith(COMMIT_PREFIX):
                seq = _numbered(path, line, at, seq)
                lines.append(line)
                continue
            commit = decode(line, Commit)
            good = Place(at, crc, commit.seq)
            yield Group(lines, commit, good)
            lines = []
    return None


def _numbered(path: Path, line: bytes, end: int, before: int | None) -> int:
    """The number of an entry line; it must be the one after `before`."""
    if before is None:
        return decode(line, JournalLine).seq
    if not line.startswith(b'{"q":%d,' % (before + 1)):
        number = _line_number(path, end - len(line))
        raise SequenceGap(
            f"{path}:{number}: entry {before + 1} is missing here; restore the file from a backup"
        )
    return before + 1


def _commit_follows(file: BinaryIO, damaged: bytes, damage: _Damage) -> bool:
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


def _line_number(path: Path, offset: int) -> int:
    """The number of the line that begins at `offset`, counted only when an error needs it."""
    number = 1
    with _opened(path) as file:
        while offset > 0 and (part := file.read(min(offset, _COUNT_BYTES))):
            number += part.count(b"\n")
            offset -= len(part)
    return number


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=_BUFFER_BYTES)
    except OSError as problem:
        raise JournalUnavailable(f"{path} cannot be read: {problem.strerror}") from problem
