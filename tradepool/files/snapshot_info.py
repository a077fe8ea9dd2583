"""What `snapshot.json` says of the snapshot's files, and putting a new snapshot in the place of the last.

Without it, or when it vouches for other content, there is no snapshot, and the journal alone restores
the store. Where old segments of the journal were moved away that would be too little, so a crash while
one snapshot replaces another must not cost both: all files are on disk before the first name changes
hands, `snapshot.json` is the last, and `finish_snapshot` goes on where a crash has ended it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from tradepool.errors import JournalUnavailable, PoolLocked
from tradepool.files.durable import FileLock, fresh_path, put_in_place
from tradepool.files.point import JournalPoint

__all__ = [
    "ARCHIVED_COUNTERS_NAME",
    "ARCHIVED_NAME",
    "FORMAT",
    "LEDGERS_NAME",
    "LOCK_NAME",
    "NAMES",
    "SNAPSHOT_NAME",
    "TRADES_NAME",
    "FileInfo",
    "SnapshotInfo",
    "finish_snapshot",
    "is_changing_hands",
    "is_whole",
    "load_snapshot",
]

TRADES_NAME = "trades.json"
LEDGERS_NAME = "ledgers.json"
ARCHIVED_NAME = "archived.json"
ARCHIVED_COUNTERS_NAME = "archived_counters.json"
SNAPSHOT_NAME = "snapshot.json"

FORMAT = 2
LOCK_NAME = "snapshot.lock"
NAMES = (TRADES_NAME, LEDGERS_NAME, ARCHIVED_NAME, ARCHIVED_COUNTERS_NAME, SNAPSHOT_NAME)
"""Every file of a snapshot, in the order in which a new one takes its place."""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What one file of the snapshot must be: elements, bytes, hash of the bytes."""

    count: int
    bytes: int
    sha256: str


class SnapshotInfo(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"format": "tradepool_snapshot"},
):
    """What `snapshot.json` says.

    `journal` is the id of the journal it belongs to and `point` where that stood before the scan: all
    changes up to there are in the files, those behind it are to be replayed by version. `covers` holds
    the newest outbox position of each shard after the scan: nothing in the files is newer, and all of
    it is journaled. `at` (µs) is when the scan began: what was there by then is in the files. `checksum`
    is the SHA-256 of the file's text without that line; "" in what an older release wrote.
    """

    format: int
    journal: str
    at: int
    point: JournalPoint
    covers: dict[int, str]
    trades: FileInfo
    ledgers: FileInfo
    archived: FileInfo
    archived_counters: FileInfo
    checksum: str = ""

    def text(self) -> bytes:
        """What stands in `snapshot.json`."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    def sealed(self) -> SnapshotInfo:
        """The same with its checksum."""
        bare = msgspec.structs.replace(self, checksum="").text()
        return msgspec.structs.replace(self, checksum=hashlib.sha256(bare).hexdigest())

    @property
    def files(self) -> dict[str, FileInfo]:
        """Name → what the file must be."""
        return {
            TRADES_NAME: self.trades,
            LEDGERS_NAME: self.ledgers,
            ARCHIVED_NAME: self.archived,
            ARCHIVED_COUNTERS_NAME: self.archived_counters,
        }


_DECODER = msgspec.json.Decoder(SnapshotInfo)


def load_snapshot(folder: Path) -> SnapshotInfo | None:
    """What the snapshot in `folder` says of itself; None when there is none that can be read."""
    return _read(folder / SNAPSHOT_NAME)


def is_changing_hands(folder: Path) -> bool:
    """Whether some files in `folder` may be those of the next snapshot and others not: its writer is putting
    them in place, or has ended in the middle of that.

    Who finds them so before and after a look at the files has seen one snapshot's.
    """
    return _read(fresh_path(folder / SNAPSHOT_NAME)) is not None


def is_whole(folder: Path, info: SnapshotInfo) -> bool:
    """Whether the files in `folder` are, byte for byte, those that `info` was written for."""
    try:
        return all(_sha256(folder / name) == expected.sha256 for name, expected in info.files.items())
    except OSError:
        return False


def finish_snapshot(folder: Path) -> None:
    """Put in place what is left of a snapshot that was all on disk when its writer ended.

    Raises: JournalUnavailable when the disk fails.
    """
    if not fresh_path(folder / SNAPSHOT_NAME).exists():
        return
    # While it is locked, its writer is at work.
    with (
        contextlib.suppress(PoolLocked),
        _disk_errors(folder),
        closing(FileLock(folder / LOCK_NAME)),
    ):
        info = _read(fresh_path(folder / SNAPSHOT_NAME))
        if info is not None and all(_is_there(folder / name, of) for name, of in info.files.items()):
            put_in_place(folder, NAMES)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise JournalUnavailable(
            f"the snapshot in {folder} cannot be put in place: {problem.strerror}"
        ) from problem


def _is_there(path: Path, expected: FileInfo) -> bool:
    """Whether the file is on disk, under its name or still under the fresh one."""
    fresh = fresh_path(path)
    found = fresh if fresh.exists() else path
    return found.exists() and _sha256(found) == expected.sha256


def _read(path: Path) -> SnapshotInfo | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        text = path.read_bytes()
        info = _DECODER.decode(text)
        if info.format == FORMAT and (not info.checksum or text == info.sealed().text()):
            return info
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
