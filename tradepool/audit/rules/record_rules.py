"""Rules for stored records: readable, what their header says, and what the journal says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tradepool.audit.report import Severity
from tradepool.audit.rules.registry import Fault, Level, Repair, rule
from tradepool.errors import Corrupt
from tradepool.files.reading import Latest
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.ledger import ledger_id
from tradepool.model.trade import Trade

__all__ = [
    "Compared",
    "Seen",
    "corrupt_record",
    "different_in_redis",
    "missing_in_journal",
    "missing_in_redis",
    "own_id",
    "record_header",
    "stale_in_redis",
]


class Seen(NamedTuple):
    """What one stored record says of itself."""

    version: int
    digest: str


class Compared(NamedTuple):
    """A record as the store has it and the newest one that the journal has; None: there is none."""

    record_id: str
    seen: Seen | None
    journaled: Latest | None


def own_id(record: codec.Record) -> str:
    """The id of the record that this is."""
    if isinstance(record, Trade | Archived):
        return record.trade_id
    return ledger_id(record.user_id, record.account_id)


@rule(Severity.CRITICAL, Level.STANDARD, Repair.JOURNAL)
def corrupt_record(record_id: str, value: bytes, problem: str = "") -> Iterator[Fault]:
    """A stored value has a header, matches its digest, and can be read and computed by this release."""
    try:
        header, body = codec.split(value)
        if codec.digest_of(body) != header.digest:
            yield record_id, "its JSON does not match its digest"
        else:
            codec.decode(header.kind, body)
            if problem:
                yield record_id, problem
    except Corrupt as unreadable:
        yield record_id, str(unreadable)


@rule(Severity.CRITICAL, Level.STANDARD, Repair.JOURNAL)
def record_header(record_id: str, header: codec.Header, record: codec.Record) -> Iterator[Fault]:
    """A record stands under its own id, in its bucket and shard; its header has its version and status."""
    status = record.status.code if isinstance(record, Trade) else codec.NO_STATUS
    own = own_id(record)
    if own != record_id:
        yield record_id, f"it is {own!r}"
    if header.version != record.version:
        yield record_id, f"its header says version {header.version}, its body {record.version}"
    if header.status != status:
        yield record_id, f"its header says status {header.status!r}, its body {status!r}"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.JOURNAL)
def missing_in_redis(record: Compared) -> Iterator[Fault]:
    """What the journal has is in the store."""
    if record.seen is None and record.journaled is not None:
        yield record.record_id, "the journal has it"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.JOURNAL)
def stale_in_redis(record: Compared) -> Iterator[Fault]:
    """The store is never behind the journal."""
    seen, journaled = record.seen, record.journaled
    if seen is not None and journaled is not None and seen.version < journaled.version:
        yield record.record_id, f"Redis has version {seen.version}, the journal {journaled.version}"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.JOURNAL)
def different_in_redis(record: Compared) -> Iterator[Fault]:
    """A version of a record is the same in store and journal."""
    seen, journaled = record.seen, record.journaled
    if seen is None or journaled is None or seen.version != journaled.version:
        return
    if seen.digest != journaled.digest:
        yield record.record_id, f"version {seen.version} is another one in the journal"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.QUARANTINE)
def missing_in_journal(record: Compared) -> Iterator[Fault]:
    """What the store has is in the journal, once that has caught up."""
    seen, journaled = record.seen, record.journaled
    if seen is not None and (journaled is None or seen.version > journaled.version):
        yield record.record_id, f"version {seen.version}"
