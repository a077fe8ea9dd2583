"""The snapshot: every record of the store in plain JSON, and the journal's place from which to go on.

`trades.json` and `ledgers.json` are arrays, a record a line, readable by any JSON reader as well as
line by line. `snapshot.json` vouches for them and is written last: without it, or when it vouches for
other content, there is no snapshot, and the journal alone restores the store.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tradepool.clock import now_us
from tradepool.errors import JournalUnavailable
from tradepool.files.durable import FileLock, replacing
from tradepool.files.point import JournalPoint
from tradepool.model import codec
from tradepool.model.ledger import Ledger
from tradepool.model.trade import Trade

__all__ = [
    "LEDGERS_NAME",
    "SNAPSHOT_NAME",
    "TRADES_NAME",
    "FileInfo",
    "SnapshotInfo",
    "StoredRecord",
    "is_whole",
    "load_snapshot",
    "read_snapshot",
    "save_snapshot",
]

TRADES_NAME = "trades.json"
LEDGERS_NAME = "ledgers.json"
SNAPSHOT_NAME = "snapshot.json"

_FORMAT = 1
_LOCK_NAME = "snapshot.lock"


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What one file of the snapshot must be: records, bytes, hash of the bytes."""

    count: int
    bytes: int
    sha256: str


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True, rename={"format": "tradepool_snapshot"}):
    """What `snapshot.json` says.

    `journal` is the id of the journal it belongs to and `point` where that stood before the scan: all
    changes up to there are in the files, those behind it are to be replayed by version. `covers` holds
    the newest outbox position of each shard after the scan: nothing in the files is newer, and all of
    it is journaled. `at` is µs.
    """

    format: int
    journal: str
    at: int
    point: JournalPoint
    covers: dict[int, str]
    trades: FileInfo
    ledgers: FileInfo


_DECODER = msgspec.json.Decoder(SnapshotInfo)


class StoredRecord(NamedTuple):
    """A record of a snapshot: the value as it was stored, and what it holds."""

    value: bytes
    content: Trade | Ledger


def save_snapshot(
    folder: Path,
    values: Iterable[bytes],
    *,
    journal: str,
    point: JournalPoint,
    confirm: Callable[[], dict[int, str]],
) -> SnapshotInfo:
    """Write `values` (records as they are stored) as the new snapshot; durable on return.

    `confirm` is called once all are written: it returns the positions that cover them, and only when
    the journal has reached those; if it raises, the last snapshot stays. Memory does not grow with the
    number of records.

    Raises: PoolLocked when another snapshot is being written, JournalUnavailable when the disk fails.
    """
    with _disk_errors(folder), closing(FileLock(folder / _LOCK_NAME)):
        with replacing(folder / TRADES_NAME) as trades_file, replacing(folder / LEDGERS_NAME) as ledgers_file:
            arrays = {
                codec.TRADE_KIND: _ArrayWriter(trades_file),
                codec.LEDGER_KIND: _ArrayWriter(ledgers_file),
            }
            for value in values:
                header, body = codec.split(value)
                arrays[header.kind].write(body)
            trades, ledgers = (array.end() for array in arrays.values())
            covers = confirm()
        info = SnapshotInfo(
            format=_FORMAT,
            journal=journal,
            at=now_us(),
            point=point,
            covers=covers,
            trades=trades,
            ledgers=ledgers,
        )
        with replacing(folder / SNAPSHOT_NAME) as file:
            file.write(msgspec.json.format(msgspec.json.encode(info)) + b"\n")
    return info


def load_snapshot(folder: Path) -> SnapshotInfo | None:
    """What the snapshot in `folder` says of itself; None when there is none that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        info = _DECODER.decode((folder / SNAPSHOT_NAME).read_bytes())
        if info.format == _FORMAT:
            return info
    return None


def is_whole(folder: Path, info: SnapshotInfo) -> bool:
    """Whether the record files in `folder` are, byte for byte, those that `info` was written for."""
    try:
        return all(
            _sha256(folder / name) == expected.sha256
            for name, expected in ((TRADES_NAME, info.trades), (LEDGERS_NAME, info.ledgers))
        )
    except OSError:
        return False


def read_snapshot(folder: Path) -> Iterator[StoredRecord]:
    """Every record of the snapshot in `folder`, one at a time; whole as `is_whole` says.

    Raises: Corrupt, OSError.
    """
    for body in _bodies(folder / TRADES_NAME):
        trade = codec.decode_trade(body)
        value = codec.pack(trade.version, body, codec.TRADE_KIND, trade.status.code)
        yield StoredRecord(value, trade)
    for body in _bodies(folder / LEDGERS_NAME):
        ledger = codec.decode_ledger(body)
        value = codec.pack(ledger.version, body, codec.LEDGER_KIND, codec.NO_STATUS)
        yield StoredRecord(value, ledger)


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bodies(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            body = line.rstrip(b",\n")
            if body not in (b"[", b"]"):
                yield body
