"""The snapshot: every record of the store in plain JSON, and the journal's place from which to go on.

`trades.json`, `ledgers.json`, `archived.json` and `archived_counters.json` are arrays, an element a
line, readable by any JSON reader as well as line by line. `snapshot.json` vouches for them
(`snapshot_info`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tradepool.clock import now_us
from tradepool.errors import Corrupt, JournalUnavailable
from tradepool.files.durable import FileLock, replacing_together
from tradepool.files.point import JournalPoint
from tradepool.files.snapshot_info import (
    ARCHIVED_COUNTERS_NAME,
    ARCHIVED_NAME,
    FORMAT,
    LEDGERS_NAME,
    LOCK_NAME,
    NAMES,
    SNAPSHOT_NAME,
    TRADES_NAME,
    FileInfo,
    SnapshotInfo,
)
from tradepool.model import codec
from tradepool.model.trade import Trade

__all__ = [
    "SnapshotFiles",
    "StoredRecord",
    "bodies_between",
    "read_archived_counters",
    "read_snapshot",
    "save_snapshot",
    "snapshot_bodies",
]

_NAME_OF_KIND = {
    codec.TRADE_KIND: TRADES_NAME,
    codec.LEDGER_KIND: LEDGERS_NAME,
    codec.ARCHIVED_KIND: ARCHIVED_NAME,
}


class _ArchivedCounters(msgspec.Struct, frozen=True):
    """A line of `archived_counters.json`. The numbers are text: they outgrow what JSON readers keep."""

    user_id: str
    counters: dict[str, str]


class _Owner(msgspec.Struct, frozen=True, gc=False):
    """What every record has."""

    user_id: str


_COUNTERS_DECODER = msgspec.json.Decoder(_ArchivedCounters)
_OWNER_DECODER = msgspec.json.Decoder(_Owner)


class StoredRecord(NamedTuple):
    """A record of a snapshot: its kind, the value as it was stored, and what it holds."""

    kind: str
    value: bytes
    content: codec.Record


class SnapshotFiles:
    """The files of a snapshot while they are being written."""

    def __init__(self, files: Mapping[str, BinaryIO]) -> None:
        self._arrays = {name: _ArrayWriter(file) for name, file in files.items() if name != SNAPSHOT_NAME}

    def write(self, value: bytes) -> None:
        """Add a record, given as it is stored. Raises: Corrupt for a kind that has no file."""
        header, body = codec.split(value)
        name = _NAME_OF_KIND.get(header.kind)
        if name is None:
            raise codec.unknown_kind(header.kind)
        self._arrays[name].write(body)

    def write_archived_counters(self, user_id: str, counters: Mapping[str, int]) -> None:
        """Add what a user's archived trades count for."""
        line = _ArchivedCounters(user_id, {name: str(number) for name, number in counters.items()})
        self._arrays[ARCHIVED_COUNTERS_NAME].write(msgspec.json.encode(line))

    def undo(self) -> Callable[[], None]:
        """What takes back everything that is written from here on."""
        steps = [array.undo() for array in self._arrays.values()]

        def take_back() -> None:
            for step in steps:
                step()

        return take_back

    def end(self) -> dict[str, FileInfo]:
        """End the arrays; name → what the file is."""
        return {name: array.end() for name, array in self._arrays.items()}


def save_snapshot(
    folder: Path, write: Callable[[SnapshotFiles], dict[int, str]], *, journal: str, point: JournalPoint
) -> SnapshotInfo:
    """Have `write` fill the files of a new snapshot and put them in place; durable on return.

    `write` returns the outbox positions that cover what it has written, and only when the journal has
    reached those; if it raises, the last snapshot stays. Memory does not grow with what is written.

    Raises: PoolLocked when another snapshot is being written, JournalUnavailable when the disk fails.
    """
    with (
        _disk_errors(folder),
        closing(FileLock(folder / LOCK_NAME)),
        replacing_together(folder, NAMES) as opened,
    ):
        files, at = SnapshotFiles(opened), now_us()
        covers = write(files)
        infos = files.end()
        info = SnapshotInfo(
            format=FORMAT,
            journal=journal,
            at=at,
            point=point,
            covers=covers,
            trades=infos[TRADES_NAME],
            ledgers=infos[LEDGERS_NAME],
            archived=infos[ARCHIVED_NAME],
            archived_counters=infos[ARCHIVED_COUNTERS_NAME],
        ).sealed()
        opened[SNAPSHOT_NAME].write(info.text())
    return info


def read_snapshot(folder: Path, is_wanted: Callable[[str], bool]) -> Iterator[StoredRecord]:
    """The records of the wanted users in the snapshot in `folder`, one at a time; whole as `is_whole` says.

    Raises: Corrupt, OSError.
    """
    for kind, body in snapshot_bodies(folder):
        if is_wanted(_owner_of(body)):
            yield _record(kind, body)


def snapshot_bodies(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(kind, JSON) of every record of the snapshot in `folder`, as it stands there. Raises: OSError."""
    for kind, name in _NAME_OF_KIND.items():
        for body in _bodies(folder / name):
            yield kind, body


def bodies_between(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """The elements of a file of a snapshot whose lines begin from byte `begin` on, before `end`.

    Raises: OSError.
    """
    with path.open("rb") as file:
        if begin:
            # The line that is under way there belongs to whoever reads what stands before.
            file.seek(begin - 1)
            file.readline()
        at = file.tell()
        while at < end and (line := file.readline()):
            at += len(line)
            body = line.rstrip(b",\n")
            if body not in (b"[", b"]"):
                yield body


def read_archived_counters(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """(user id, what the user's archived trades count for) of the snapshot in `folder`.

    Raises: Corrupt, OSError.
    """
    for body in _bodies(folder / ARCHIVED_COUNTERS_NAME):
        try:
            line = _COUNTERS_DECODER.decode(body)
            yield line.user_id, {name: int(number) for name, number in line.counters.items()}
        except (msgspec.MsgspecError, ValueError) as problem:
            raise Corrupt(f"{folder / ARCHIVED_COUNTERS_NAME} cannot be read: {problem}") from problem


def _owner_of(body: bytes) -> str:
    try:
        return _OWNER_DECODER.decode(body).user_id
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"a record of the snapshot cannot be read: {problem}") from problem


def _record(kind: str, body: bytes) -> StoredRecord:
    content = codec.decode(kind, body)
    status = content.status.code if isinstance(content, Trade) else codec.NO_STATUS
    return StoredRecord(kind, codec.pack(content.version, body, kind, status), content)


class _ArrayWriter:
    """A JSON array, an element a line, counted and hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._count = 0
        self._bytes = 0

    def write(self, body: bytes) -> None:
        self._put((b",\n" if self._count else b"[\n") + body)
        self._count += 1

    def undo(self) -> Callable[[], None]:
        before, count, size = self._hash.copy(), self._count, self._bytes

        def take_back() -> None:
            self._file.seek(size)
            self._file.truncate()
            self._hash, self._count, self._bytes = before.copy(), count, size

        return take_back

    def end(self) -> FileInfo:
        self._put(b"\n]\n" if self._count else b"[\n]\n")
        return FileInfo(count=self._count, bytes=self._bytes, sha256=self._hash.hexdigest())

    def _put(self, text: bytes) -> None:
        self._file.write(text)
        self._hash.update(text)
        self._bytes += len(text)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise JournalUnavailable(f"no snapshot written to {folder}: {problem.strerror}") from problem


def _bodies(path: Path) -> Iterator[bytes]:
    return bodies_between(path, 0, path.stat().st_size)
