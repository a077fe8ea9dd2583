"""The spool: commands on the bot's own disk until the pool has them in its journal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from weakref import WeakSet

import msgspec

from tradepool.errors import Corrupt, PoolLocked, StoreUnavailable

__all__ = ["BODIES_MAX", "NewEntry", "Spool", "SpoolEntry"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    command_id TEXT NOT NULL UNIQUE,
    queue      TEXT NOT NULL,
    record_id  TEXT NOT NULL,
    user_id    TEXT,
    body       BLOB NOT NULL,
    beside     TEXT
) STRICT
"""

_BUSY_TIMEOUT_S = 10.0
BODIES_MAX = 500
"""Commands that one statement reads, well below SQLite's own limit of numbers in it."""


class NewEntry(msgspec.Struct, frozen=True, gc=False):
    """A command to keep: its id, queue, record, the record's user where known, and its JSON.

    `beside` is the second record that it changes: the ledger, where a trade comes with a reservation.
    """

    command_id: str
    queue: str
    record_id: str
    user_id: str | None
    body: bytes
    beside: str | None = None


class SpoolEntry(msgspec.Struct, frozen=True, order=True, gc=False):
    """A kept command without its JSON; `seq` grows in the order of writing.

    A client may hold a hundred thousand: the garbage collector is spared them, for none can be in a cycle.
    """

    seq: int
    command_id: str
    queue: str
    record_id: str
    user_id: str | None
    beside: str | None = None

    @property
    def records(self) -> tuple[str, ...]:
        """The records that it changes: one or two."""
        return (self.record_id,) if self.beside is None else (self.record_id, self.beside)


class Spool:
    """Commands in the order they were given, in an SQLite file at `path`, or in memory without one.

    What `append` took is on disk when it returns (WAL, synchronous=FULL). It holds at most
    `entries_max` commands. One process at a time may have a file open.

    Raises: PoolLocked when another process has the file, StoreUnavailable when it cannot be opened, Corrupt
    when it is damaged, or no spool.
    """

    def __init__(self, path: Path | None, *, entries_max: int) -> None:
        self._path = path
        self._entries_max = entries_max
        self._lock = threading.RLock()
        self._lock_file = _locked(path) if path is not None else None
        try:
            with _translated(self._path):
                self._open(path)
        except BaseException:
            if self._lock_file is not None:
                self._lock_file.close()
            raise

    def append(self, entries: Sequence[NewEntry]) -> list[SpoolEntry]:
        """Keep all of `entries` or none. Raises: StoreUnavailable when full, or the disk refuses."""
        with self._lock, _translated(self._path):
            if len(entries) > self.room:
                raise StoreUnavailable(
                    f"the spool holds {self._count} commands that the pool has not confirmed, and may hold "
                    f"{self._entries_max}; start the fleet, or more workers, or raise spool_max"
                )
            with self._transaction():
                kept = self._insert(entries)
            self._count += len(kept)
            return kept

    @property
    def room(self) -> int:
        """How many more commands it may hold."""
        return max(0, self._entries_max - self._count)

    def take_over(self, other: Spool) -> list[SpoolEntry]:
        """Move up to 500 of the oldest commands of `other` to the end of this one, as far as there is room.

        They are on disk here before they go there: a crash in between leaves some in both, and to send a
        command twice is harmless.
        """
        with self._lock, other._lock, _translated(self._path):
            rows = other._oldest(min(self.room, BODIES_MAX))
            with self._transaction():
                kept = self._insert([entry for _, entry in rows if not self._has(entry)])
            self._count += len(kept)
        other.remove([seq for seq, _ in rows])
        return kept

    def entries(self) -> list[SpoolEntry]:
        """Everything kept, oldest first."""
        with self._lock, _translated(self._path):
            rows = self._db.execute(
                "SELECT seq, command_id, queue, record_id, user_id, beside FROM commands ORDER BY seq"
            )
            return [SpoolEntry(*row) for row in rows]

    def bodies(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """The JSON of those of `seqs` that are still kept; at most `BODIES_MAX` at a time."""
        assert len(seqs) <= BODIES_MAX
        marks = ",".join("?" * len(seqs))
        query = f"SELECT seq, body FROM commands WHERE seq IN ({marks})"  # noqa: S608 - question marks only
        with self._lock, _translated(self._path):
            return dict(self._db.execute(query, seqs).fetchall())

    def remove(self, seqs: Sequence[int]) -> None:
        """Let go of commands that the pool has, or has refused for good.

        That is not forced onto the disk: what a power cut brings back is sent again, and changes nothing. A
        later `append` takes it along, for it syncs all of the log.
        """
        with self._lock, _translated(self._path):
            self._db.execute("PRAGMA synchronous=NORMAL")
            try:
                with self._transaction():
                    self._db.executemany("DELETE FROM commands WHERE seq = ?", [(seq,) for seq in seqs])
            finally:
                self._db.execute("PRAGMA synchronous=FULL")
            self._count -= len(seqs)

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Close the file; what it holds is there for the next opener."""
        with self._lock:
            self._db.close()
            if self._lock_file is not None:
                self._lock_file.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _open(self, path: Path | None) -> None:
        self._db = sqlite3.connect(
            path or ":memory:", timeout=_BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)
        self._add_missing_column()
        self._count = int(self._db.execute("SELECT count(*) FROM commands").fetchone()[0])
        newest = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'commands'").fetchone()
        self._seq_max = int(newest[0]) if newest else 0

    def _add_missing_column(self) -> None:
        """A spool of an older bot has no `beside`; what it holds still has to be sent."""
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(commands)")}
        if "beside" not in columns:
            self._db.execute("ALTER TABLE commands ADD COLUMN beside TEXT")

    def _oldest(self, count_max: int) -> list[tuple[int, NewEntry]]:
        rows = self._db.execute(
            "SELECT seq, command_id, queue, record_id, user_id, body, beside FROM commands"
            " ORDER BY seq LIMIT ?",
            (count_max,),
        )
        return [(seq, NewEntry(*entry)) for seq, *entry in rows]

    def _has(self, entry: NewEntry) -> bool:
        query = "SELECT 1 FROM commands WHERE command_id = ?"
        return self._db.execute(query, (entry.command_id,)).fetchone() is not None

    def _insert(self, entries: Sequence[NewEntry]) -> list[SpoolEntry]:
        first = self._seq_max + 1
        self._db.executemany(
            "INSERT INTO commands (seq, command_id, queue, record_id, user_id, body, beside)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (seq, e.command_id, e.queue, e.record_id, e.user_id, e.body, e.beside)
                for seq, e in enumerate(entries, first)
            ],
        )
        self._seq_max += len(entries)
        return [
            SpoolEntry(seq, e.command_id, e.queue, e.record_id, e.user_id, e.beside)
            for seq, e in enumerate(entries, first)
        ]


_lock_files: WeakSet[IO[str]] = WeakSet()


def _locked(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = path.with_name(f"{path.name}.lock").open("a")
    except OSError as problem:
        raise StoreUnavailable(f"the spool {path} cannot be written: {problem}") from problem
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        lock_file.close()
        raise PoolLocked(
            f"another process has the spool {path} open; give each bot its own, or all of them one folder"
        ) from problem
    _lock_files.add(lock_file)
    return lock_file


def _let_go_in_child() -> None:
    """The lock lasts as long as any process has the file open, and a child may outlive the bot."""
    for lock_file in list(_lock_files):
        lock_file.close()


os.register_at_fork(after_in_child=_let_go_in_child)


@contextlib.contextmanager
def _translated(path: Path | None) -> Iterator[None]:
    spool = "the spool in memory" if path is None else f"the spool {path}"
    try:
        yield
    except sqlite3.OperationalError as problem:
        raise StoreUnavailable(f"{spool} cannot be written: {problem}") from problem
    except sqlite3.DatabaseError as problem:
        raise Corrupt(f"{spool} is damaged: {problem}; move the file away") from problem
