"""`trade_pool.log`: every accepted change, on disk before anybody is told that it is safe.

One process writes, any number read. Entries are appended in groups; a group counts once its commit
line is on disk. A segment that has grown large enough is finished, and another takes its name.
docs/file-formats.md describes the lines, `reading` reads them, `scanning` checks them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from tradepool.clock import now_us
from tradepool.errors import Corrupt, JournalUnavailable, Misconfigured
from tradepool.files.checkpoint import (
    check_not_lost,
    check_reached,
    load_checkpoint,
    save_checkpoint,
    saved_checkpoint,
)
from tradepool.files.durable import FileLock, fsync_folder, prepare_folder, replacing, write_all
from tradepool.files.header import FORMAT, Ending, Header, encode_header
from tradepool.files.lines import Commit, NewLine, encode_commit, encode_lines
from tradepool.files.point import JournalPoint, Place
from tradepool.files.reading import read_groups
from tradepool.files.rotation import begin_segment, take_back
from tradepool.files.sealing import Sealer
from tradepool.files.segments import active_header, holds
from tradepool.latencies import Latencies
from tradepool.logger import Logger
from tradepool.model.positions import parse_position
from tradepool.settings import SEGMENT_BYTES

__all__ = ["JOURNAL_NAME", "LOCK_NAME", "Journal"]

JOURNAL_NAME = "trade_pool.log"
LOCK_NAME = "trade_pool.lock"

CHECKPOINT_EVERY_BYTES = 16 << 20
"""How much log at most is read when a journal is opened after a crash."""

_RETRIES_PER_SEGMENT = 8

_log = Logger(__name__)


class Journal:
    """The journal at `path`, open for writing by this process alone; created when absent.

    Opening reads from the last checkpoint on, and what it found is durable on return. A torn tail is
    left as it is until the first commit or recovery, which cut it: whoever finds that confirmed lines are
    missing still has the evidence.

    Raises: PoolLocked when somebody else has it open, Misconfigured when it was made with another
    shard count or the folder cannot be used, ChecksumMismatch, SequenceGap, JournalUnavailable.
    """

    def __init__(self, path: Path, shard_count: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path = path
        self.fsyncs = Latencies()
        """How long the disk took to make a group durable."""
        self._segment_bytes = self._rotate_at = segment_bytes
        self._entries: list[NewLine] = []
        self._fd: int | None = None
        prepare_folder(path.parent)
        with ExitStack() as undo:
            try:
                lock = FileLock(path.with_name(LOCK_NAME))
                undo.callback(lock.close)
                self._header, self._before_last, self._point = _open_log(path, shard_count)
                self._sealer = Sealer(path)
                self._sealer.compress()
            except OSError as problem:
                raise JournalUnavailable(f"{path} cannot be opened: {problem.strerror}") from problem
            undo.pop_all()
        self._lock: FileLock | None = lock
        self._checkpointed = self._point.offset

    @property
    def id(self) -> str:
        """The journal's own id; server, checkpoint and snapshot name it."""
        return self._header.id

    @property
    def point(self) -> JournalPoint:
        """Where the journal stands after its last commit; may be read from any thread."""
        return self._point

    def append(self, entries: Iterable[NewLine]) -> None:
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
        if self._point.offset >= self._rotate_at:
            self._rotate()
        data, after = self._encoded(entries, positions)
        try:
            self._write(data)
        except OSError as problem:
            raise JournalUnavailable(f"{self.path} cannot be written: {problem.strerror}") from problem
        self._before_last, self._point = self._point, after
        self._sealer.grown(after.offset)
        if after.offset - self._checkpointed >= CHECKPOINT_EVERY_BYTES:
            self._save_checkpoint()

    def cut_unconfirmed(self) -> None:
        """Have the log end at the last commit, durably; nobody may be let write on a server that lacks more.

        Whoever opens the log next would take a group whose write or fsync failed for confirmed.
        Raises: as `commit`.
        """
        try:
            self._check_unchanged()
        except OSError as problem:
            raise JournalUnavailable(f"{self.path} cannot be written: {problem.strerror}") from problem

    def close(self) -> None:
        """Save a checkpoint and let the next opener in; calling it twice is fine."""
        if self._lock is None:
            return
        self._save_checkpoint()
        self._close_file()
        self._sealer.close()
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encoded(self, entries: list[NewLine], positions: Mapping[int, str]) -> tuple[bytes, JournalPoint]:
        """The group's bytes, and where the journal stands once they are on disk."""
        before = self._point
        assert all(
            parse_position(position) > parse_position(before.position(shard))
            for shard, position in positions.items()
        ), "positions only move forward"
        parts, crc = encode_lines(entries, before.seq, before.crc)
        commit = Commit(positions=dict(positions), seq=before.seq + len(entries), at=now_us())
        line, crc = encode_commit(commit, crc)
        parts.append(line)
        data = b"".join(parts)
        end = Place(segment=before.segment, offset=before.offset + len(data), crc=crc, seq=commit.seq)
        return data, before.after(end, commit, entries)

    def _rotate(self) -> None:
        """Begin the next segment. If the disk does not let us, this one grows on until it does.

        Raises: Corrupt when somebody else changed the log.
        """
        try:
            self._check_unchanged()
            ending = Ending(sha256=self._sealer.sha256(self._point.offset), point=self._point)
            header = _next_header(self._header, ending)
            line, crc = encode_header(header)
            begin_segment(self.path, self._point.segment, line)
        except OSError as problem:
            _log.warning("journal_segment_not_finished", problem=str(problem))
            self._rotate_at = self._point.offset + self._segment_bytes // _RETRIES_PER_SEGMENT
            return
        self._close_file()
        self._header, self._point = header, header.start(len(line), crc)
        self._before_last = self._point
        self._checkpointed, self._rotate_at = self._point.offset, self._segment_bytes
        self._sealer.begun()

    def _write(self, data: bytes) -> None:
        """Put `data` after the last commit, on disk. On any failure the file is closed and not trusted."""
        with ExitStack() as failed:
            failed.callback(self._close_file)
            fd = self._check_unchanged()
            write_all(fd, data, self._point.offset)
            with self.fsyncs.measured():
                os.fdatasync(fd)
            failed.pop_all()

    def _opened_at_last_commit(self) -> int:
        """Open the log afresh and cut it back to its last commit: at the start and after a failure.

        After a failed write or fsync nothing behind the last commit can be believed. Linux drops the
        pages it could not write and marks them clean: reading still shows them, the next fsync of the
        same descriptor succeeds, and they are not on disk. What was confirmed before stands, so the
        rest is cut, the cut itself is fsynced (which tells whether the disk works again), and the
        group is written anew through a new descriptor, which gets errors of its own.
        """
        if not holds(self.path, self._point):
            raise Corrupt(f"{self.path} was changed by somebody else; stop them and restore it from a backup")
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        with ExitStack() as failed:
            failed.callback(os.close, fd)
            os.ftruncate(fd, self._point.offset)
            os.fsync(fd)
            # After a rotation: lines are not to go into a segment that has no name on disk yet.
            fsync_folder(self.path.parent)
            failed.pop_all()
        return fd

    def _check_unchanged(self) -> int:
        """The descriptor to write with, of the very file that has the name and ends at the last commit.

        A log that was moved, removed or cut under its writer would swallow lines that nobody finds.
        """
        if self._fd is None:
            self._fd = self._opened_at_last_commit()
        mine = os.fstat(self._fd)
        try:
            in_place = os.path.samestat(mine, self.path.stat())
        except FileNotFoundError:
            in_place = False
        if not in_place or mine.st_size != self._point.offset:
            raise Corrupt(
                f"{self.path} was moved, cut or written by somebody else; put it back and start again"
            )
        return self._fd

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _save_checkpoint(self) -> None:
        # A full disk must not fail a commit that is safe already; without a checkpoint opening is slower.
        with contextlib.suppress(OSError):
            save_checkpoint(self.path, self.id, self._before_last, reached=self._point.offset)
        self._checkpointed = self._point.offset


def _open_log(path: Path, shard_count: int) -> tuple[Header, JournalPoint, JournalPoint]:
    """The active segment's header, and where the journal stands before and after its last group.

    Makes a new journal when there is none.
    """
    if not path.exists():
        _create(path, shard_count)
    take_back(path)
    header, start = active_header(path)
    if header.shards != shard_count:
        raise Misconfigured(
            f"{path} was made with {header.shards} shards, the settings say {shard_count}; "
            f"set TRADEPOOL_SHARD_COUNT={header.shards}"
        )
    point = load_checkpoint(path, header.id) or start
    before_last = point
    for group in read_groups(path, since=point):
        before_last = point
        point = point.after(group.end, group.commit, group.entries())
    check_reached(path, saved_checkpoint(path, header.id), point)
    _write_again(path, before_last.offset, point.offset)
    return header, before_last, point


def _write_again(path: Path, start: int, end: int) -> None:
    """Make the last group durable: its writer may have been killed before its fsync, or have seen it fail.

    An fsync alone would not do: pages that the kernel failed to write count as clean, so they are
    made dirty with the same bytes. All groups before were confirmed, or they would not have followers.
    """
    if start == end:
        return
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        write_all(fd, os.pread(fd, end - start, start), start)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _create(path: Path, shard_count: int) -> None:
    check_not_lost(path)
    header = Header(format=FORMAT, id=secrets.token_hex(8), shards=shard_count, created=now_us())
    with replacing(path) as file:
        file.write(encode_header(header)[0])


def _next_header(header: Header, ending: Ending) -> Header:
    return msgspec.structs.replace(header, segment=ending.point.segment + 1, before=ending, created=now_us())
