"""What finished segments need, done beside the writer: their hash, and their compression.

One thread of low priority. It hashes the active segment while that grows, so that finishing it takes no
longer than hashing its last few MiB, and it compresses finished ones. Nothing waits for it, and what
it cannot do now (a full disk) it tries again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tradepool.errors import ChecksumMismatch, TradePoolError
from tradepool.files.compression import InflateError, compress, inflating
from tradepool.files.segments import compressed_path, ending_of, finished_segments, sealed_path
from tradepool.logger import Logger

__all__ = ["Sealer"]

HASH_EVERY_BYTES = 4 << 20
"""How much of the active segment at most is left to hash when it is finished, if the thread keeps up."""
RETRY_S = 60.0
"""After how long a compression that failed is tried again."""

_PART_BYTES = 1 << 20
_NICENESS = 10
_STOP_TIMEOUT_S = 10.0

_log = Logger(__name__)


class Sealer:
    """Looks after the segments of the journal at `log`, for its owner; the thread begins when needed."""

    def __init__(self, log: Path) -> None:
        self._path = log
        self._hash = _RunningHash(log)
        self._hash_ahead: tuple[_RunningHash, int] = (self._hash, 0)
        self._is_asked = False
        self._retry_at: float | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def grown(self, end: int) -> None:
        """The active segment has grown to byte `end`, which is on disk."""
        if end - self._hash_ahead[1] >= HASH_EVERY_BYTES:
            self._hash_ahead = (self._hash, end)
            self._begin()

    def sha256(self, end: int) -> str:
        """The hash (hex) of the active segment, which ends at byte `end`. Raises: OSError."""
        return self._hash.finished(end)

    def begun(self) -> None:
        """Another segment is the active one now."""
        self._hash.close()
        self._hash = _RunningHash(self._path)
        self._hash_ahead = (self._hash, 0)
        self._is_asked = True
        self._begin()

    def compress(self) -> None:
        """Have every finished segment compressed that is not. Raises: OSError when it cannot look."""
        if _uncompressed(self._path):
            self._is_asked = True
            self._begin()

    def close(self) -> None:
        """End the thread; a compression it is at begins anew when the journal is opened again."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S)
        self._hash.close()

    def _begin(self) -> None:
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal-segments", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        # The kernel takes a thread for a process here. A machine that refuses only has the thread compete.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        with contextlib.suppress(_Stopped):
            while True:
                self._wait()
                self._breathe()
                if self._is_asked:
                    self._is_asked, self._retry_at = False, None
                    self._compress_finished()

    def _wait(self) -> None:
        """Until there is something to do, or to try again."""
        left = None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())
        if self._wake.wait(left):
            self._wake.clear()
        else:
            self._is_asked = True

    def _breathe(self) -> None:
        """Between two parts of anything: stop if that is asked for, and keep up with the writer's hash."""
        if self._stop.is_set():
            raise _Stopped
        running, end = self._hash_ahead
        # Whoever finishes the segment reads the same bytes and is told.
        with contextlib.suppress(OSError):
            running.advance(end)

    def _compress_finished(self) -> None:
        numbers: list[int] = []
        with self._put_off():
            numbers = _uncompressed(self._path)
        for number in numbers:
            with self._put_off():
                self._compress(number)

    @contextlib.contextmanager
    def _put_off(self) -> Iterator[None]:
        """What fails in here is tried again later."""
        try:
            yield
        except (OSError, TradePoolError) as problem:
            _log.warning("segment_not_compressed", problem=str(problem))
            self._retry_at = time.monotonic() + RETRY_S

    def _compress(self, number: int) -> None:
        """The uncompressed file goes only once the other one has been read back and has the right hash."""
        ending = ending_of(self._path, number)
        if ending is None:
            return
        plain, target = sealed_path(self._path, number), compressed_path(self._path, number)
        compress(plain, target, self._breathe)
        try:
            is_same = self._hash_of(target) == ending[0].sha256
        except InflateError:
            is_same = False
        if not is_same:
            target.unlink()
            raise ChecksumMismatch(f"{plain} is not as it was when it was finished; restore it from a backup")
        plain.unlink()

    def _hash_of(self, compressed: Path) -> str:
        found = hashlib.sha256()
        with inflating(compressed) as file:
            while part := file.read(_PART_BYTES):
                self._breathe()
                found.update(part)
        return found.hexdigest()


class _Stopped(Exception):  # noqa: N818 - it is no error
    """The journal is being closed."""


class _RunningHash:
    """The SHA-256 of a file that grows, up to where it has been asked for; any thread may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._done = 0
        self._is_closed = False

    def advance(self, end: int) -> None:
        """Take in the bytes up to `end`; nothing once it is closed. Raises: OSError."""
        with self._lock:
            if self._is_closed:
                return
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
            while self._done < end and (part := self._file.read(min(_PART_BYTES, end - self._done))):
                self._hash.update(part)
                self._done += len(part)

    def finished(self, end: int) -> str:
        """The hash (hex) of the whole file, which ends at `end`. Raises: OSError."""
        self.advance(end)
        assert self._done == end, "the file is there up to its end, and nobody asked for more"
        return self._hash.hexdigest()

    def close(self) -> None:
        """The file is another's from now on."""
        with self._lock:
            self._is_closed = True
            if self._file is not None:
                self._file.close()


def _uncompressed(log: Path) -> list[int]:
    return [n for n, paths in finished_segments(log).items() if sealed_path(log, n) in paths]
