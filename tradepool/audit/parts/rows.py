"""Rows of work files: what an audit keeps of each record that it has read somewhere, by group of shards.

A file is JSON lines. What a reader gets is what its writer left: the answer of a part names bytes and
checksum of each of its files, so that a machine that crashed in between falsifies nothing.
"""

from __future__ import annotations

import shutil
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path

import msgspec

from tradepool.audit.parts.part import WorkFile
from tradepool.errors import ResourceUnavailable

__all__ = ["Row", "RowFiles", "When", "read_rows"]

_ROWS_MAX = 20_000
"""Rows in memory before they are written."""
_CHUNK_BYTES = 1 << 20
_ENCODER = msgspec.json.Encoder()


class When(IntEnum):
    """Where a line of the journal stands by the snapshot that is looked at."""

    BEFORE = 0
    """Journaled before the snapshot's scan began."""
    WITHIN = 1
    """Journaled behind that, up to where the snapshot may reach."""
    AFTER = 2


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version of one record, or of one archived trade; or the name of a key."""

    record_id: str
    shard: int
    version: int = 0
    digest: str = ""
    when: int = 0


_DECODER = msgspec.json.Decoder(Row)


class RowFiles:
    """Writes rows to a file for each group of shards in `folder`, which is created.

    Of the rows of one record that `replace` adds the newest is kept, as far as it is still in memory.

    Raises: ResourceUnavailable when the disk fails.
    """

    def __init__(self, folder: Path, groups: Sequence[Sequence[int]]) -> None:
        self._folder = folder
        self._group_of = {shard: number for number, group in enumerate(groups) for shard in group}
        self._added: defaultdict[int, list[Row]] = defaultdict(list)
        self._newest: defaultdict[int, dict[str, Row]] = defaultdict(dict)
        """Of each shard: a fault may have put one id into two."""
        self._files: dict[int, WorkFile] = {}
        self._room = _ROWS_MAX
        try:
            folder.mkdir(parents=True)
        except OSError as problem:
            raise _unwritable(folder, problem) from problem

    def add(self, row: Row) -> None:
        """Keep the row, behind all that were added before."""
        self._added[self._group_of[row.shard]].append(row)
        self._count()

    def replace(self, row: Row) -> None:
        """Keep the row in the place of those of the record that were given here before; order is kept among
        these alone, and towards rows before the last `flush`.
        """
        self._newest[row.shard][row.record_id] = row
        self._count()

    def flush(self) -> None:
        """Write what is in memory."""
        for shard, newest in self._newest.items():
            self._added[self._group_of[shard]] += newest.values()
        for group, rows in self._added.items():
            self._append(group, _ENCODER.encode_lines(rows))
        self._added.clear()
        self._newest.clear()
        self._room = _ROWS_MAX

    def end(self) -> dict[int, WorkFile]:
        """Write the rest; group → its file."""
        self.flush()
        return self._files

    def _count(self) -> None:
        self._room -= 1
        if not self._room:
            self.flush()

    def _append(self, group: int, lines: bytes) -> None:
        before = self._files.get(group, WorkFile(0, 0))
        path = _path(self._folder, group)
        try:
            with path.open("ab") as file:
                file.write(lines)
        except OSError as problem:
            # It is done again, in another folder: on a full disk each attempt would take what becomes free.
            shutil.rmtree(self._folder, ignore_errors=True)
            raise _unwritable(path, problem) from problem
        self._files[group] = WorkFile(before.bytes + len(lines), zlib.crc32(lines, before.crc))


def read_rows(folder: Path, group: int, expected: WorkFile) -> Iterator[Row]:
    """The rows of a group in `folder`, in order.

    Raises: ResourceUnavailable when the file is not here, or not `expected`.
    """
    path = _path(folder, group)
    size = crc = 0
    rest = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                size, crc = size + len(chunk), zlib.crc32(chunk, crc)
                lines, newline, rest = (rest + chunk).rpartition(b"\n")
                yield from _DECODER.decode_lines(lines + newline)
    except (OSError, msgspec.MsgspecError) as problem:
        raise _unreadable(path, str(problem)) from problem
    if (size, crc) != expected:
        raise _unreadable(path, "it is not what was written")


def _path(folder: Path, group: int) -> Path:
    return folder / f"{group:03d}.rows"


def _unwritable(path: Path, problem: OSError) -> ResourceUnavailable:
    return ResourceUnavailable(
        f"{path}: {problem.strerror}; an audit of all records needs room there for its work files"
    )


def _unreadable(path: Path, problem: str) -> ResourceUnavailable:
    return ResourceUnavailable(
        f"the work file {path} of an audit cannot be read: {problem}; audit workers share one data_dir"
    )
