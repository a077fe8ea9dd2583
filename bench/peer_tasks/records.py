"""The file that a peer's tasks write: one record a line, synced before the task returns.

`Synced` is what one task per trade implies, a sync of its own for each record. The grouped ones are kinder:
of the tasks that run in one process at a time, one writes and syncs what all of them have. Both write under
a lock between processes and sync after it, so that the syncs of several processes overlap.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import threading
from typing import Any

import orjson

__all__ = ["FILE", "IS_TUNED", "URL", "AsyncGrouped", "Grouped", "Synced", "grouped", "line_of", "synced"]

URL = os.environ.get("PEERS_URL", "redis://127.0.0.1:1/0")
FILE = os.environ.get("PEERS_FILE", os.devnull)
IS_TUNED = os.environ.get("PEERS_TUNED") == "1"


def line_of(trade: dict[str, Any]) -> bytes:
    """The record of a trade: its JSON, and the end of the line."""
    return orjson.dumps(trade) + b"\n"


class Synced:
    """Appends a record and syncs it. Threads share it; a process opens its own."""

    def __init__(self) -> None:
        self._file = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def append(self, record: bytes) -> None:
        """Returns once the record is on disk."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                os.write(self._file, record)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        os.fdatasync(self._file)


class Grouped:
    """The same for threads, which share their syncs: what came while one was under way is the next group."""

    def __init__(self) -> None:
        self._file = Synced()
        self._lock = threading.Lock()
        self._leading = threading.Lock()
        self._waiting: list[bytes] = []
        self._given = 0
        self._synced = 0

    def append(self, record: bytes) -> None:
        """Returns once the record is on disk."""
        with self._lock:
            self._waiting.append(record)
            self._given += 1
            number = self._given
        with self._leading:
            if self._synced >= number:
                return
            with self._lock:
                group, self._waiting = self._waiting, []
                reached = self._given
            self._file.append(b"".join(group))
            self._synced = reached


class AsyncGrouped:
    """The same for the tasks of one event loop."""

    def __init__(self) -> None:
        self._file = Synced()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._leader: asyncio.Task[None] | None = None

    async def append(self, record: bytes) -> None:
        """Returns once the record is on disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        if self._leader is None:
            self._leader = asyncio.create_task(self._lead())
        await done

    async def _lead(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await asyncio.to_thread(self._file.append, b"".join(record for record, _ in group))
            for _, done in group:
                done.set_result(None)
        self._leader = None


@functools.cache
def _file_of(process: int, kind: type[Synced | Grouped]) -> Synced | Grouped:
    """This process's file; a fork opens its own, for a lock is its opener's."""
    del process
    return kind()


def synced(trade: dict[str, Any]) -> None:
    """Write the record of a trade with a sync of its own."""
    _file_of(os.getpid(), Synced).append(line_of(trade))


def grouped(trade: dict[str, Any]) -> None:
    """Write the record of a trade; threads of this process share their syncs."""
    _file_of(os.getpid(), Grouped).append(line_of(trade))
