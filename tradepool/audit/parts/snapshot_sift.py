"""The snapshot that a run looks at: pinned when the run begins, compared file by file, sifted in pieces."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from tradepool.audit.parts.part import Part, SnapshotPin
from tradepool.audit.parts.rows import Row, RowFiles
from tradepool.audit.report import Finding
from tradepool.audit.rules.file_rules import snapshot_damaged
from tradepool.errors import Corrupt, ResourceUnavailable
from tradepool.files.segments import active_header
from tradepool.files.snapshot import bodies_between
from tradepool.files.snapshot_info import (
    ARCHIVED_COUNTERS_NAME,
    SNAPSHOT_NAME,
    FileInfo,
    SnapshotInfo,
    is_changing_hands,
    load_snapshot,
)
from tradepool.model.codec import digest_of
from tradepool.model.ledger import ledger_id
from tradepool.store.keys import Keys

__all__ = ["SnapshotSight", "look_at_file", "record_files", "sift_snapshot"]

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


class SnapshotSight:
    """The snapshot beside `journal` as one run sees it: `pin`, if there is one that it can look at.

    `findings` is what is wrong with what it says of itself, `undecided` what could not be told. The pin's
    files are links in `folder`, so a snapshot that replaces it changes nothing any more.

    Raises: ResourceUnavailable when the folder cannot be written.
    """

    def __init__(self, journal: Path, folder: Path) -> None:
        self._journal = journal
        self.pin: SnapshotPin | None = None
        self.findings: list[Finding] = []
        self.undecided: list[str] = []
        for attempt in range(_ATTEMPTS_MAX):
            if self._is_taken(folder.with_name(f"{folder.name}-{attempt}")):
                return
        self.undecided.append("the snapshot, which another one is replacing")

    def _is_taken(self, folder: Path) -> bool:
        """One look; whether one and the same snapshot was there all the time."""
        source = self._journal.parent
        if is_changing_hands(source):
            time.sleep(_CHANGING_S)
            return False
        info = load_snapshot(source)
        found = list(self._of_info(info))
        pin = None
        if info is not None and not found:
            pin = _pinned(source, info, folder)
        # A new one takes its place file by file: it may have done so, or have begun to.
        if is_changing_hands(source) or load_snapshot(source) != info:
            return False
        self.findings, self.pin = found, pin
        if info is not None and not info.checksum:
            self.undecided.append(f"{SNAPSHOT_NAME}, which has no checksum yet")
        return True

    def _of_info(self, info: SnapshotInfo | None) -> Iterator[Finding]:
        if info is None:
            if (self._journal.parent / SNAPSHOT_NAME).exists():
                yield from snapshot_damaged(
                    SNAPSHOT_NAME, "this release cannot read it, or its checksum is another"
                )
            return
        # Reading the journal says what is wrong with that.
        with suppress(Corrupt):
            if active_header(self._journal)[0].id != info.journal:
                yield from snapshot_damaged(SNAPSHOT_NAME, "it is of another journal")


def look_at_file(folder: Path, name: str, pin: SnapshotPin) -> list[Finding]:
    """What is wrong with a file of the pinned snapshot."""
    return snapshot_damaged(name, _problem_of(folder / name, pin.files[name]))


def record_files(pin: SnapshotPin) -> list[str]:
    """The files of the snapshot that hold records."""
    return [name for name in pin.files if name != ARCHIVED_COUNTERS_NAME]


def sift_snapshot(folder: Path, part: Part, rows: RowFiles, keys: Keys) -> list[Finding]:
    """Sift the records of a piece of a file of the pinned snapshot; what is wrong with them."""
    (name,) = part.files
    try:
        for body in bodies_between(folder / name, part.begin, part.end):
            named = _NAMED_DECODER.decode(body)
            shard = keys.shard_of_user(named.user_id)
            rows.add(Row(named.record_id, shard, named.version, digest_of(body)))
    except OSError:
        # Whoever compares the whole file finds that.
        return []
    except (msgspec.MsgspecError, ValueError) as problem:
        return snapshot_damaged(SNAPSHOT_NAME, f"it vouches for what cannot be read: {problem}")
    return []


def _pinned(source: Path, info: SnapshotInfo, folder: Path) -> SnapshotPin:
    try:
        folder.mkdir(parents=True)
        for name in info.files:
            _link(source / name, folder / name)
    except OSError as problem:
        raise ResourceUnavailable(
            f"{folder}: {problem.strerror}; an audit of all records needs room there for its work files"
        ) from problem
    return SnapshotPin(
        begins_at=info.point.seq, covers=info.covers, folder=folder.name, files=dict(info.files)
    )


def _link(file: Path, link: Path) -> None:
    """Have `link` lead to what is `file` now; one that is missing is found when it is read."""
    try:
        os.link(file, link)
    except FileNotFoundError:
        return
    except OSError:
        # Not every file system has links.
        shutil.copyfile(file, link)


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
