"""One pass over the journal: the newest version of every record, and the snapshot held against it.

The snapshot says where the journal stood when its scan began, and up to which outbox positions it may
reach. So each of its records is the newest version at the beginning, or one that was journaled between
the two.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from tradepool.audit.file_rules import Kept, journal_damaged, snapshot_damaged, snapshot_different
from tradepool.audit.report import Finding
from tradepool.errors import Corrupt
from tradepool.files.lines import JournalLine
from tradepool.files.reading import Group, Latest, Newest, newest_versions
from tradepool.files.segments import active_header
from tradepool.files.snapshot import snapshot_bodies
from tradepool.files.snapshot_info import (
    SNAPSHOT_NAME,
    FileInfo,
    SnapshotInfo,
    is_changing_hands,
    load_snapshot,
)
from tradepool.model.codec import digest_of
from tradepool.model.ledger import ledger_id
from tradepool.model.positions import START_POSITION, parse_position

__all__ = ["JournalAudit"]

_ATTEMPTS_MAX = 20
_CHUNK_BYTES = 1 << 20
_BRACKETS = 2
"""Lines of a snapshot's file that are no elements."""
_CHANGING_S = 0.05
"""Between two looks at a snapshot that is being put in place, which takes as long as a few renames."""


class _Named(msgspec.Struct, frozen=True, gc=False):
    """What every record has, and what tells a trade from a ledger."""

    user_id: str
    trade_id: str | None = None
    account_id: str = "default"
    version: int = 1

    @property
    def record_id(self) -> str:
        return ledger_id(self.user_id, self.account_id) if self.trade_id is None else self.trade_id


_NAMED_DECODER = msgspec.json.Decoder(_Named)


class _Version(NamedTuple):
    version: int
    digest: str


class JournalAudit:
    """Reads the journal at `path`, and the snapshot beside it if there is one; `findings` is what is wrong,
    `undecided` what could not be told.

    `newest` is None when the journal cannot be read to its end. Memory: about 400 bytes for each record of
    the pool, and 250 for each of the snapshot while the journal is read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.findings: list[Finding] = []
        self.undecided: list[str] = []
        self.newest: Newest | None = None

    def run(self) -> None:
        """Read everything. Raises: JournalUnavailable where the files cannot be opened."""
        snapshot = self._snapshot()
        try:
            self.newest = newest_versions(self._path, None if snapshot is None else snapshot.look)
        except Corrupt as problem:
            self.findings += journal_damaged(str(problem))
            return
        if snapshot is not None:
            self.findings += snapshot.findings(self.newest.shards)

    def _snapshot(self) -> _SnapshotCheck | None:
        """What the snapshot holds, if all its files are as they should be, and belong to this journal."""
        folder = self._path.parent
        for _ in range(_ATTEMPTS_MAX):
            if is_changing_hands(folder):
                time.sleep(_CHANGING_S)
                continue
            info = load_snapshot(folder)
            found = list(self._of_files(folder, info))
            check = None
            if info is not None and not found:
                try:
                    check = _SnapshotCheck(folder, info)
                except (msgspec.MsgspecError, ValueError, Corrupt) as problem:
                    found += snapshot_damaged(SNAPSHOT_NAME, f"it vouches for what cannot be read: {problem}")
            # A new one takes its place file by file: it may have done so, or have begun to.
            if not is_changing_hands(folder) and load_snapshot(folder) == info:
                self.findings += found
                return check
        self.undecided.append("the snapshot, which another one is replacing")
        return None

    def _of_files(self, folder: Path, info: SnapshotInfo | None) -> Iterator[Finding]:
        if info is None:
            if (folder / SNAPSHOT_NAME).exists():
                yield from snapshot_damaged(SNAPSHOT_NAME, "this release cannot read it")
            return
        try:
            if active_header(self._path)[0].id != info.journal:
                yield from snapshot_damaged(SNAPSHOT_NAME, "it is of another journal")
        except Corrupt:
            # Reading the journal says what is wrong with it.
            return
        for name, expected in info.files.items():
            yield from snapshot_damaged(name, _problem_of(folder / name, expected))


def _problem_of(path: Path, expected: FileInfo) -> str:
    """What is wrong with a file of the snapshot; "": nothing."""
    digest, size, lines = hashlib.sha256(), 0, 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size, lines = size + len(chunk), lines + chunk.count(b"\n")
    except OSError as problem:
        return f"it cannot be read: {problem.strerror}"
    found = FileInfo(count=lines - _BRACKETS, bytes=size, sha256=digest.hexdigest())
    return "" if found == expected else "it is not what snapshot.json says"


class _SnapshotCheck:
    """The records of a snapshot, as long as they are not found in the journal."""

    def __init__(self, folder: Path, info: SnapshotInfo) -> None:
        self._begins_at = info.point.seq
        self._has_begun = False
        self._covers = {shard: parse_position(position) for shard, position in info.covers.items()}
        self._start = parse_position(START_POSITION)
        self._records: dict[str, _Version] = {}
        self._found: list[Finding] = []
        for _, body in snapshot_bodies(folder):
            named = _NAMED_DECODER.decode(body)
            self._records[named.record_id] = _Version(named.version, digest_of(body))

    def look(self, group: Group, shards: dict[int, dict[str, Latest]]) -> None:
        """The next group of the journal, and what the journal held before it."""
        if group.end.seq > self._begins_at:
            self._begin(shards)
            for entry in group.entries():
                self._see(entry)

    def findings(self, shards: dict[int, dict[str, Latest]]) -> list[Finding]:
        """What was found by the end of the journal; what is left was never journaled."""
        self._begin(shards)
        for record_id, kept in self._records.items():
            self._judge(Kept(record_id, *kept, 0, None))
        self._records.clear()
        return self._found

    def _begin(self, shards: dict[int, dict[str, Latest]]) -> None:
        """The scan began here: the snapshot has all of this, or newer."""
        if self._has_begun:
            return
        self._has_begun = True
        for records in shards.values():
            for record_id, latest in records.items():
                kept = self._records.get(record_id)
                if kept is None:
                    self._judge(Kept(record_id, None, "", latest.version, None))
                elif kept.version <= latest.version:
                    del self._records[record_id]
                    self._judge(Kept(record_id, *kept, latest.version, latest.digest))

    def _see(self, entry: JournalLine) -> None:
        """A line behind the beginning; it counts up to where the snapshot says that it ends."""
        kept = self._records.get(entry.record_id)
        if kept is None or kept.version != entry.version:
            return
        if parse_position(entry.position) <= self._covers.get(entry.shard, self._start):
            del self._records[entry.record_id]
            self._judge(Kept(entry.record_id, *kept, 0, entry.digest))

    def _judge(self, kept: Kept) -> None:
        self._found += snapshot_different(kept)
