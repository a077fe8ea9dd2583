"""Whole files that are either replaced durably or not at all, and locks on a folder's files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tradepool.errors import PoolLocked, ResourceUnavailable

__all__ = ["FILE_MODE", "FileLock", "fsync_folder", "prepare_folder", "replacing"]

FILE_MODE = 0o640
_PID_BYTES_MAX = 20


class FileLock:
    """An exclusive lock on `path`, held until `close` or the end of the process.

    The lock is the kernel's (`flock`), so a killed owner never leaves it behind; the file only holds
    the owner's process id, for the message that the next opener gets.

    Raises: PoolLocked when another opener holds it, also one in this process.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            owner = os.pread(self._fd, _PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise PoolLocked(f"{path}: held by process {owner or '?'}; stop it or wait for it") from taken
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Let the next opener in. The file stays: removing it would let two openers hold two locks."""
        os.close(self._fd)


def prepare_folder(folder: Path) -> None:
    """Create `folder` and its parents when absent.

    Raises: ResourceUnavailable when it cannot be created, written or is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ResourceUnavailable(
            f"{folder}: {problem.strerror}; set data_dir to a folder of yours"
        ) from problem
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceUnavailable(f"{folder} cannot be written; set data_dir to a folder of yours")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write the next content of `path`; readers see the old file or the whole new one, never a part.

    On a normal exit the content and the folder are fsynced before the name changes hands. On an error
    the old file stays as it was. One writer of `path` at a time is the caller's promise.
    """
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames, links and removals in `folder` durable. Raises: OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
