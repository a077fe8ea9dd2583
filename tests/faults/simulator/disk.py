"""A disk that fails on command, inside the journal's process, and what of the journal it really holds.

Nothing real can be made to fail just now and work again in a moment, so the calls themselves are
replaced. They look at a page of memory that the parent shares and writes. Every fsync that succeeded
is noted, so that the parent can take from the files what a power cut would have taken.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import struct
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

__all__ = ["Death", "Disk", "DiskMode"]

_MODE, _DEATH, _SHARE, _ERRORS, _CLOCK = 0, 1, 2, 8, 16


class DiskMode(IntEnum):
    """What the disk answers."""

    GOOD = 0
    FULL = 1
    WRITE_EIO = 2
    FSYNC_EIO = 3


class Death(IntEnum):
    """At which point of its next write the process dies."""

    NONE = 0
    IN_WRITE = 1
    BEFORE_FSYNC = 2
    AFTER_FSYNC = 3


class Disk:
    """The shared page, and the note of what was fsynced. Made by the parent, installed in the child."""

    def __init__(self, data_dir: Path, notes: Path) -> None:
        self._data_dir = data_dir
        self._notes = notes
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.lies = False
        """Whether fdatasync does nothing and says it did: a broken build."""

    def set(self, mode: DiskMode, percent: int = 0) -> None:
        """From now on the disk is like that; of a write to a full one `percent` still fit."""
        self._page[_SHARE] = percent
        self._page[_MODE] = mode

    def arm(self, death: Death, percent: int = 0) -> None:
        """Have the process die in its next write, at that point, with `percent` of it written."""
        self._page[_SHARE] = percent
        self._page[_DEATH] = death

    @property
    def errors(self) -> int:
        """How many calls were answered with an error."""
        return int(struct.unpack_from("<Q", self._page, _ERRORS)[0])

    @property
    def clock_step_ns(self) -> int:
        """By how much the process's clock is wrong."""
        return int(struct.unpack_from("<q", self._page, _CLOCK)[0])

    @clock_step_ns.setter
    def clock_step_ns(self, step_ns: int) -> None:
        struct.pack_into("<q", self._page, _CLOCK, step_ns)

    def install(self) -> None:
        """Replace this process's write and fsync calls; they fail only on files of the data folder."""
        self._note = os.open(self._notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._real_write, self._real_pwrite = os.write, os.pwrite
        os.pwrite = self._pwrite  # type: ignore[assignment]
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._syncing(getattr(os, name)))

    def lose_what_was_not_synced(self, choose: random.Random) -> None:
        """Cut each file of the journal somewhere behind what its last successful fsync covered, or spoil
        what stands behind it: what a power cut leaves. The process must be dead."""
        synced: dict[int, int] = {}
        if self._notes.exists():
            for line in self._notes.read_bytes().splitlines():
                inode, size = map(int, line.split())
                synced[inode] = size
        for path in self._data_dir.glob("trade_pool*.log"):
            found = path.stat()
            safe = synced.get(found.st_ino)
            if safe is not None and safe < found.st_size:
                _lose(path, choose, choose.randint(safe, found.st_size), found.st_size)

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if not self._is_ours(fd):
            return self._real_pwrite(fd, data, offset)
        part = bytes(data)[: len(data) * self._page[_SHARE] // 100]
        if self._page[_DEATH] == Death.IN_WRITE:
            self._real_pwrite(fd, part, offset)
            self._die()
        if self._page[_MODE] == DiskMode.WRITE_EIO:
            self._fail(errno.EIO)
        if self._page[_MODE] == DiskMode.FULL:
            if not part:
                self._fail(errno.ENOSPC)
            # A full disk takes what fits; the call for the rest then fails.
            self._page[_SHARE] = 0
            return self._real_pwrite(fd, part, offset)
        return self._real_pwrite(fd, data, offset)

    def _syncing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            if not self._is_ours(fd):
                real(fd)
                return
            if self._page[_DEATH] == Death.BEFORE_FSYNC:
                self._die()
            if self._page[_MODE] == DiskMode.FSYNC_EIO:
                self._fail(errno.EIO)
            if self.lies and real.__name__ == "fdatasync":
                return
            before = os.fstat(fd)
            real(fd)
            self._real_write(self._note, b"%d %d\n" % (before.st_ino, before.st_size))
            if self._page[_DEATH] == Death.AFTER_FSYNC:
                self._die()

        return sync

    def _is_ours(self, fd: int) -> bool:
        return str(fd).isdigit() and Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self._data_dir)

    def _fail(self, code: int) -> None:
        struct.pack_into("<Q", self._page, _ERRORS, self.errors + 1)
        raise OSError(code, os.strerror(code))

    def _die(self) -> None:
        self._page[_DEATH] = Death.NONE
        os.kill(os.getpid(), signal.SIGKILL)


def _lose(path: Path, choose: random.Random, keep: int, size: int) -> None:
    """Either the file ends at `keep`, or its pages from there on were never written."""
    with path.open("r+b") as file:
        if choose.randrange(2):
            file.truncate(keep)
        else:
            file.seek(keep)
            file.write(bytes(size - keep))
