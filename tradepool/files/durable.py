"""Files replaced durably or not at all, lines added durably, and locks on a folder's files."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from tradepool.errors import PoolLocked, ResourceUnavailable

__all__ = [
    "FILE_MODE",
    "FileLock",
    "append_lines",
    "fresh_path",
    "fsync_folder",
    "prepare_folder",
    "put_in_place",
    "replacing",
    "replacing_together",
]

FILE_MODE = 0o640
_PID_BYTES_MAX = 20


class FileLock:
    """An exclusive lock on `path`, held until `close` or the end of the process.

    The lock is the kernel's (`flock`), so a killed owner never leaves it behind; the file only holds
    the owner's process id, for the message that the next opener gets.

    Raises: PoolLocked when another opener holds it, also one in this process; OSError when the disk fails,
    and then nobody holds it.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as undo:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            # An open descriptor would go on holding the lock, for nobody.
            undo.callback(os.close, self._fd)
            self._lock(path)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
            undo.pop_all()

    def close(self) -> None:
        """Let the next opener in. The file stays: removing it would let two openers hold two locks."""
        os.close(self._fd)

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            owner = os.pread(self._fd, _PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
            raise PoolLocked(f"{path}: held by process {owner or '?'}; stop it or wait for it") from taken


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
    with replacing_together(path.parent, [path.name]) as files:
        yield files[path.name]


@contextmanager
def replacing_together(folder: Path, names: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """Write the next contents of several files of `folder`, as `replacing` does that of one.

    All are on disk before the first takes its name, in the order of `names`. An error before that
    leaves the old files as they were; after a crash between two of them `put_in_place` goes on.
    """
    with ExitStack() as undo, ExitStack() as opened:
        files: dict[str, BinaryIO] = {}
        for name in names:
            fresh = fresh_path(folder / name)
            undo.callback(fresh.unlink, missing_ok=True)
            files[name] = opened.enter_context(fresh.open("wb"))
            os.fchmod(files[name].fileno(), FILE_MODE)
        yield files
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        if len(names) > 1:
            fsync_folder(folder)
        # From here on what is written is worth more than what it replaces.
        undo.pop_all()
        put_in_place(folder, names)


def put_in_place(folder: Path, names: Sequence[str]) -> None:
    """Give each fresh file its name, in order, where it has not got it yet; durable on return."""
    for name in names:
        fresh = fresh_path(folder / name)
        if fresh.exists():
            fresh.replace(folder / name)
    fsync_folder(folder)


def fresh_path(path: Path) -> Path:
    """Where the next content of `path` is written."""
    return path.with_name(f"{path.name}.new")


def fsync_folder(folder: Path) -> None:
    """Make renames, links and removals in `folder` durable. Raises: OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def append_lines(path: Path, lines: bytes) -> None:
    """Add whole `lines` to the end of `path`; on return they are on disk. Several processes may do so.

    What a crash or a full disk has cut short stays a line of its own. Raises: OSError.
    """
    is_new = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        # One write: lines of several processes do not mix.
        told = _after_torn_line(fd) + lines
        if os.write(fd, told) < len(told):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
    if is_new:
        fsync_folder(path.parent)


def _after_torn_line(fd: int) -> bytes:
    """What ends a line that was cut short when the disk was full or the process was killed."""
    size = os.fstat(fd).st_size
    return b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, however many calls that takes. Raises: OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]
