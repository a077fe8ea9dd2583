"""`trade_pool.log`: every accepted change, on disk before anybody is told that it is safe.

One process writes, any number read. Entries are appended in groups; a group counts once its commit
line is on disk. docs/file-formats.md describes the lines, `reading` how they are checked.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tradepool.clock import now_us
from tradepool.errors import Corrupt, JournalUnavailable, Misconfigured, SequenceGap
from tradepool.files.checkpoint import CHECKPOINT_NAME, checkpoint_of, load_checkpoint, save_checkpoint
from tradepool.files.durable import FileLock, prepare_folder, replacing
from tradepool.files.lines import (
    FORMAT,
    Commit,
    Header,
    JournalEntry,
    encode_commit,
    encode_entry,
    encode_header,
)
from tradepool.files.point import JournalPoint, with_entries
from tradepool.files.reading import Place, place_at, read_groups, read_header, read_history, read_lines
from tradepool.model.positions import parse_position

__all__ = ["JOURNAL_NAME", "LOCK_NAME", "Journal", "read_history", "read_lines"]

JOURNAL_NAME = "trade_pool.log"
LOCK_NAME = "trade_pool.lock"

CHECKPOINT_EVERY_BYTES = 16 << 20
"""How much log at most is read when a journal is opened after a crash."""


class Journal:
    """The journal at `path`, open for writing by this process alone; created when absent.

    Opening reads from the last checkpoint on, and what it found is durable on return. A torn tail is
    left as it is until the first commit, which cuts it: whoever finds that confirmed lines are missing
    still has the evidence.

    Raises: PoolLocked when somebody else has it open, Misconfigured when it was made with another
    shard count or the folder cannot be used, ChecksumMismatch, SequenceGap, JournalUnavailable.
    """

    def __init__(self, path: Path, shard_count: int) -> None:
        self.path = path
        self._entries: list[JournalEntry] = []
        self._fd: int | None = None
        prepare_folder(path.parent)
        with ExitStack() as undo:
            try:
                lock = FileLock(path.with_name(LOCK_NAME))
                undo.callback(lock.close)
                self.id, self._point = _open_log(path, shard_count)
            except OSError as problem:
                raise JournalUnavailable(f"{path} cannot be opened: {problem.strerror}") from problem
            undo.pop_all()
        self._lock: FileLock | None = lock
        self._checkpointed = self._point.offset

    @property
    def point(self) -> JournalPoint:
        """Where the journal stands after its last commit; may be read from any thread."""
        return self._point

    def append(self, entries: Iterable[JournalEntry]) -> None:
        """Take entries into the group that the next commit writes; nothing is on disk yet."""
        self._entries.extend(entries)

    def commit(self, positions: Mapping[int, str]) -> None:
        """Write the group and its commit line, and fsync them: durable on return.

        `positions` names the outbox position now reached in each shard that moved. On failure the
        group is dropped and the journal stands where it stood: append the same entries and commit
        again later.

        Raises: JournalUnavailable when the disk is full, read-only or failing; Corrupt when somebody
        else wrote, cut, moved or removed the log.
        """
        entries, self._entries = self._entries, []
        assert self._lock is not None, "the journal is closed"
        assert positions or not entries, "entries need the positions that cover them"
        if not positions:
            return
        data, after = self._encoded(entries, positions)
        try:
            self._write(data)
        except OSError as problem:
            raise JournalUnavailable(f"{self.path} cannot be written: {problem.strerror}") from problem
        self._point = after
        if after.offset - self._checkpointed >= CHECKPOINT_EVERY_BYTES:
            self._save_checkpoint()

    def close(self) -> None:
        """Save a checkpoint and let the next opener in; calling it twice is fine."""
        if self._lock is None:
            return
        self._save_checkpoint()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encoded(
        self, entries: list[JournalEntry], positions: Mapping[int, str]
    ) -> tuple[bytes, JournalPoint]:
        """The group's bytes, and where the journal stands once they are on disk."""
        before = self._point
        assert all(
            parse_position(position) > parse_position(before.position(shard))
            for shard, position in positions.items()
        ), "positions only move forward"
        lines, seq, crc = [], before.seq, before.crc
        for entry in entries:
            seq += 1
            line, crc = encode_entry(entry, seq, crc)
            lines.append(line)
        line, crc = encode_commit(Commit(positions=dict(positions), seq=seq, at=now_us()), crc)
        data = b"".join((*lines, line))
        return data, JournalPoint(
            offset=before.offset + len(data),
            crc=crc,
            seq=seq,
            positions={**before.positions, **positions},
            digests=with_entries(before.digests, entries),
        )

    def _write(self, data: bytes) -> None:
        """Put `data` after the last commit, on disk. On any failure the file is closed and not trusted."""
        fd, self._fd = self._fd, None
        if fd is None:
            fd = self._opened_at_last_commit()
        with ExitStack() as failed:
            failed.callback(os.close, fd)
            self._check_unchanged(fd)
            _write_all(fd, data, self._point.offset)
            os.fdatasync(fd)
            failed.pop_all()
        self._fd = fd

    def _opened_at_last_commit(self) -> int:
        """Open the log afresh and cut it back to its last commit: at the start and after a failure.

        After a failed write or fsync nothing behind the last commit can be believed. Linux drops the
        pages it could not write and marks them clean: reading still shows them, the next fsync of the
        same descriptor succeeds, and they are not on disk. What was confirmed before stands, so the
        rest is cut, the cut itself is fsynced (which tells whether the disk works again), and the
        group is written anew through a new descriptor, which gets errors of its own.
        """
        place = place_at(self.path, self._point.offset)
        if place is None or place.crc != self._point.crc:
            raise Corrupt(f"{self.path} was changed by somebody else; stop them and restore it from a backup")
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        with ExitStack() as failed:
            failed.callback(os.close, fd)
            os.ftruncate(fd, self._point.offset)
            os.fsync(fd)
            failed.pop_all()
        return fd

    def _check_unchanged(self, fd: int) -> None:
        """A log that was moved, removed or cut under its writer would swallow lines that nobody finds."""
        mine = os.fstat(fd)
        try:
            in_place = os.path.samestat(mine, self.path.stat())
        except FileNotFoundError:
            in_place = False
        if not in_place or mine.st_size != self._point.offset:
            raise Corrupt(
                f"{self.path} was moved, cut or written by somebody else; put it back and start again"
            )

    def _save_checkpoint(self) -> None:
        # A full disk must not fail a commit that is safe already; without a checkpoint opening is slower.
        with contextlib.suppress(OSError):
            save_checkpoint(self.path, self.id, self._point)
        self._checkpointed = self._point.offset


def _open_log(path: Path, shard_count: int) -> tuple[str, JournalPoint]:
    """The journal's id and where it stands; a new journal when there is none."""
    if not path.exists():
        _create(path, shard_count)
    header, start = read_header(path)
    if header.shards != shard_count:
        raise Misconfigured(
            f"{path} was made with {header.shards} shards, the settings say {shard_count}; "
            f"set TRADEPOOL_SHARD_COUNT={header.shards}"
        )
    point = load_checkpoint(path, header.id) or JournalPoint(offset=start.offset, crc=start.crc)
    last_group = point.offset
    for group in read_groups(path, Place(point.offset, point.crc, point.seq)):
        last_group = point.offset
        point = JournalPoint(
            offset=group.end.offset,
            crc=group.end.crc,
            seq=group.commit.seq,
            positions={**point.positions, **group.commit.positions},
            digests=with_entries(point.digests, group.entries()),
        )
    _write_again(path, last_group, point.offset)
    return header.id, point


def _write_again(path: Path, start: int, end: int) -> None:
    """Make the last group durable: its writer may have been killed before its fsync, or have seen it fail.

    An fsync alone would not do: pages that the kernel failed to write count as clean, so they are
    made dirty with the same bytes. All groups before were confirmed, or they would not have followers.
    """
    if start == end:
        return
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _write_all(fd, os.pread(fd, end - start, start), start)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _create(path: Path, shard_count: int) -> None:
    if checkpoint_of(path).exists():
        raise SequenceGap(
            f"{path} is gone, but its {CHECKPOINT_NAME} is there; put the log back, "
            "or move the whole folder away to begin an empty pool"
        )
    header = Header(format=FORMAT, id=secrets.token_hex(8), shards=shard_count, created=now_us())
    with replacing(path) as file:
        file.write(encode_header(header)[0])


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]
