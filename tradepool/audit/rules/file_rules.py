"""Rules for sums, journal, outboxes, snapshot, archive and the book of open positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from tradepool.archive.parts import Row
from tradepool.audit.report import Severity
from tradepool.audit.rules.registry import Fault, Level, Repair, rule
from tradepool.model.archived import Archived
from tradepool.model.positions import parse_position

__all__ = [
    "BOOK_CHECK_MAX_US",
    "OUTBOX_MAX_US",
    "BookReport",
    "BookRow",
    "Kept",
    "Sums",
    "Waiting",
    "archive_damaged",
    "archive_different",
    "archive_missing",
    "book",
    "bucket_sums",
    "digest",
    "journal_damaged",
    "outbox_stuck",
    "outbox_unreadable",
    "snapshot_damaged",
    "snapshot_different",
]

BOOK_CHECK_MAX_US = 24 * 3600 * 1_000_000
"""How old the last comparison of the book may be: by itself it is made more often."""
OUTBOX_MAX_US = 5 * 60 * 1_000_000
"""How long a commit may wait for the journal: longer than a writer takes to recover a large store."""


class Sums(NamedTuple):
    """XOR of the digests of a shard's records (16 hex) and their count."""

    digest: str
    records: int


class Waiting(NamedTuple):
    """The first commit of a shard that the journal does not have; its position says when it was made."""

    shard: int
    position: str


class Kept(NamedTuple):
    """A record of the snapshot; of the journal, the version when the scan began and what the snapshot's own
    version is there (None: not journaled up to where the snapshot says it ends).
    """

    record_id: str
    version: int | None
    digest: str
    version_at_start: int
    journaled_digest: str | None


class BookRow(msgspec.Struct, frozen=True):
    """A trade that the last check of the book found different, as its report names it; None: no row."""

    trade_id: str
    what: str
    book: str | None = None
    store: str | None = None


class BookReport(msgspec.Struct, frozen=True):
    """What an audit needs of the report of a check of the book."""

    differences: tuple[BookRow, ...]
    """The first thousand."""
    different: int = 0
    undecided: tuple[str, ...] = ()
    at: int | None = None
    """When the book was compared, µs."""

    def untold(self, now_us: int) -> Iterator[str]:
        """What it does not tell: an audit compares no book, and takes the word of the last check."""
        if self.at is not None and self.at < now_us - BOOK_CHECK_MAX_US:
            yield f"the book of open positions, last compared at {self.at} (µs)"
        if self.different > len(self.differences):
            yield f"{self.different - len(self.differences)} more trades that the book has otherwise"
        if self.undecided:
            yield f"{len(self.undecided)} trades or shards that changed while the book was compared"


@rule(Severity.CRITICAL, Level.DIGEST, Repair.COUNTERS)
def digest(shard: int, ours: Sums, journaled: Sums) -> Iterator[Fault]:
    """Store and journal keep the same sums of the same records of a shard."""
    if ours != journaled:
        yield f"shard {shard:02x}", "Redis and the journal count or digest its records differently"


@rule(Severity.CRITICAL, Level.DEEP, Repair.COUNTERS)
def bucket_sums(shard: int, buckets: Mapping[int, Sums], records: Mapping[int, Sums]) -> Iterator[Fault]:
    """The sums that the store keeps of each bucket of a shard are those of the records in it."""
    nothing = Sums("0" * 16, 0)
    for bucket in sorted(buckets.keys() | records.keys()):
        if buckets.get(bucket, nothing) != records.get(bucket, nothing):
            yield f"shard {shard:02x}", f"bucket {bucket:x} is counted or digested otherwise than its records"


@rule(Severity.CRITICAL, Level.DIGEST)
def outbox_stuck(waiting: Waiting, now_us: int) -> Iterator[Fault]:
    """The journal takes what a shard has committed within minutes; until then nothing is confirmed."""
    milliseconds, _ = parse_position(waiting.position)
    if milliseconds * 1000 < now_us - OUTBOX_MAX_US:
        yield f"shard {waiting.shard:02x}", f"the journal has nothing from {waiting.position} on"


@rule(Severity.CRITICAL, Level.DIGEST)
def outbox_unreadable(shard: int, problem: str) -> Iterator[Fault]:
    """What waits for the journal is what commits write; at anything else the journal stops."""
    if problem:
        yield f"shard {shard:02x}", problem


@rule(Severity.CRITICAL, Level.DIGEST, Repair.BOOK)
def book(row: BookRow) -> Iterator[Fault]:
    """The book of open positions that marks are made from holds what the store holds, as last compared."""
    if row.book != row.store:
        yield row.trade_id, f"{row.what}: the book has {row.book}, the store {row.store}"


@rule(Severity.CRITICAL, Level.DEEP)
def journal_damaged(problem: str) -> Iterator[Fault]:
    """Every line of the journal is there and matches its checksum, from the first segment to the last."""
    if problem:
        yield "trade_pool.log", problem


@rule(Severity.WARNING, Level.DEEP, Repair.SNAPSHOT)
def snapshot_damaged(name: str, problem: str) -> Iterator[Fault]:
    """The files of the snapshot are, byte for byte, those that snapshot.json was written for."""
    if problem:
        yield name, problem


@rule(Severity.CRITICAL, Level.DEEP, Repair.SNAPSHOT)
def snapshot_different(kept: Kept) -> Iterator[Fault]:
    """A snapshot holds every record that was journaled before its scan, as the journal has it."""
    if kept.version is None:
        yield kept.record_id, "the snapshot does not have it"
    elif kept.version < kept.version_at_start:
        yield kept.record_id, f"version {kept.version}, the journal had {kept.version_at_start}"
    elif kept.journaled_digest is None:
        yield kept.record_id, f"version {kept.version} is not in the journal"
    elif kept.journaled_digest != kept.digest:
        yield kept.record_id, f"version {kept.version} is another one in the journal"


@rule(Severity.CRITICAL, Level.DEEP, Repair.ARCHIVE)
def archive_missing(left: Archived, *, is_found: bool) -> Iterator[Fault]:
    """Every trade that the store says is archived is in the archive of its day."""
    if not is_found:
        yield left.trade_id, f"not in the archive of {left.day}"


@rule(Severity.CRITICAL, Level.DEEP, Repair.ARCHIVE)
def archive_damaged(part: str, problem: str) -> Iterator[Fault]:
    """Every file of the archive can be read."""
    if problem:
        yield part, problem


@rule(Severity.CRITICAL, Level.DEEP, Repair.ARCHIVE)
def archive_different(row: Row, expected: Mapping[str, Archived], *, is_second: bool) -> Iterator[Fault]:
    """The archive has an archived trade once, and as it was when it left the store."""
    left = expected[row.trade_id]
    if left.digest not in ("", row.digest):
        yield row.trade_id, f"version {row.version} is another one"
    elif is_second:
        yield row.trade_id, "it is there twice"
