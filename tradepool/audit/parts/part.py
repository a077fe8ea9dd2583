"""What an audit is divided into, and what comes of a part: plain data that fits into a message.

A run is a list of stages, each a list of parts. Parts of one stage know nothing of each other; those of the
next one are planned from the answers of those before.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from tradepool.audit.report import Finding
from tradepool.audit.rules.registry import Level
from tradepool.audit.venue_audit import VenueSnapshot
from tradepool.files.point import Place
from tradepool.files.snapshot_info import FileInfo

__all__ = ["Answer", "Kind", "Part", "Run", "SnapshotPin", "WorkFile"]


class Kind(StrEnum):
    """What a part does."""

    SUMS = "sums"
    """Compares the sums that store and journal keep, and pins the snapshot that the run looks at."""
    KEYS = "keys"
    """Looks at the type and the time limit of every key."""
    SEGMENT = "segment"
    """Sifts one segment of the journal into a file of rows for each group of shards."""
    SNAPSHOT_FILE = "snapshot-file"
    """Compares one file of the snapshot with what `snapshot.json` says of it."""
    SNAPSHOT_ROWS = "snapshot-rows"
    """Sifts a piece of a file of the snapshot."""
    ARCHIVE = "archive"
    """Sifts some files of the archive."""
    SHARDS = "shards"
    """Reads every record of a group of shards and compares it with the rows of the group."""
    OPEN = "open"
    """Reads what is alive in a group of shards."""
    VENUE = "venue"
    """Compares what a venue told."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of work of a run; done twice it changes nothing."""

    kind: Kind
    number: int = 0
    """Tells it from the others of its kind: the number of its segment or its group of shards."""
    shards: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    begin: int = 0
    """Of a piece of a file, the byte at which it begins; a line belongs to the piece in which it begins."""
    end: int = 0

    @property
    def name(self) -> str:
        """Its name within the run."""
        return f"{self.kind}-{self.number:08d}"


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One audit of the whole pool; `started_at` is µs.

    It is of one `generation` of the server: what was seen before a recovery may be gone after it.
    """

    run_id: str
    level: Level
    started_at: int
    generation: str
    groups: tuple[tuple[int, ...], ...] = ()
    """The shards, as parts share them."""
    forecast: int = 1
    """How many parts it will have, about."""
    attempt: int = 1
    repair: bool = False
    quarantine: bool = False
    venue: VenueSnapshot | None = None

    @property
    def audit_id(self) -> str:
        """The name of the audit, which may need more runs than one."""
        return self.run_id.partition(".")[0]


class SnapshotPin(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshot that a run looks at, whose files it has links to."""

    begins_at: int
    """The number of the last journal entry before its scan."""
    covers: dict[int, str]
    """Shard → the outbox position up to which it may reach."""
    folder: str
    """Where the links are, within the run's work folder."""
    files: dict[str, FileInfo]
    """File → what it must be."""


class WorkFile(NamedTuple):
    """A work file, as whoever wrote it left it."""

    bytes: int
    crc: int


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a part; each kind of part fills in what it knows."""

    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()
    records: int = 0
    """Records of the store that were read."""
    folder: str = ""
    """Where its rows are, within the run's work folder."""
    files: dict[int, WorkFile] = {}
    """Group of shards → its file of rows; groups without rows left out."""
    different: tuple[int, ...] = ()
    """Shards whose sums differ."""
    restless: tuple[int, ...] = ()
    """Shards that never stood still."""
    stuck: tuple[int, ...] = ()
    """Shards whose commits the journal does not take, or whose sums cannot be read."""
    unreadable: tuple[int, ...] = ()
    """Shards whose sums cannot be read."""
    unusable_shards: tuple[int, ...] = ()
    """Shards of which a key has a wrong type."""
    unusable_users: dict[int, tuple[str, ...]] = {}
    """Shard → users of whom a key has a wrong type."""
    snapshot: SnapshotPin | None = None
    end: Place | None = None
    """The place up to which a segment was read; None: it is damaged."""
    damaged_days: tuple[str, ...] = ()
    """Days of the archive of which a file cannot be read."""
