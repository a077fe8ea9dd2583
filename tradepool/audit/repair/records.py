"""Records that are missing, old, other or broken in the store: the journal's newest version replaces them.

First the very bytes that the journal has, if the store still has what was looked at; then, by an ordinary
commit, the same content as the next version, so that the journal and the history of the record tell of it.
What is left of an archived trade has no next version: the archive counts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum, auto

import msgspec

from tradepool.audit.repair.committing import commit_next
from tradepool.audit.repair.fixes import CHANGED, Fix, refusal
from tradepool.audit.repair.journaled import Journaled, newest_records
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import content_of
from tradepool.audit.report import Finding, shown
from tradepool.audit.rules import record_rules
from tradepool.audit.rules.record_rules import own_id
from tradepool.audit.rules.registry import Repair
from tradepool.commanding import new_command_id
from tradepool.errors import Corrupt, JournalUnavailable
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.changes import APPLIED_MAX
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.ledger import Ledger, next_expiry
from tradepool.model.trade import SCHEMA_VERSION, Trade
from tradepool.store.mending import Mending, Write
from tradepool.store.plan import RecordChange

__all__ = ["RecordRepairs", "Soundness", "intact_version", "next_version", "told_text", "told_version"]

RULES = frozenset(
    each.name
    for each in (
        record_rules.corrupt_record,
        record_rules.record_header,
        record_rules.missing_in_redis,
        record_rules.stale_in_redis,
        record_rules.different_in_redis,
    )
)
RECORDS_MAX = 10_000
"""Records that one repair puts back: it has the journal's version of each in memory."""
_UNREADABLE = "what cannot be read"


class Soundness(Enum):
    """What can be said of a shard's records."""

    SOUND = auto()
    PENDING = auto()
    """Some are yet to be put back."""
    UNSOUND = auto()
    """Some cannot be put back."""


class RecordRepairs:
    """Puts back records as the journal has them.

    `unsound` are those that are not right (yet), by id, with their users (None: not known): nothing that
    follows from them can be told.
    """

    def __init__(self, pool: RepairedPool) -> None:
        self._pool = pool
        self.unsound: dict[str, str | None] = {}
        self._places: dict[str, int | None] = {}
        self._given_up: set[str] = set()
        self.shards: set[int] = set()
        """Where records are put back."""

    def soundness(self, shard: int) -> Soundness:
        """What can be said of the records of a shard; one of which nobody knows where it is may be there."""
        here = {i for i in self.unsound if self._places.get(i) in (None, shard)}
        if not here:
            return Soundness.SOUND
        return Soundness.UNSOUND if here & self._given_up else Soundness.PENDING

    def note_unsound(self, record_id: str, shard: int | None, user_id: str | None) -> None:
        """That a record is not right yet, though it may be made so."""
        self.unsound[record_id], self._places[record_id] = user_id, shard
        if shard is not None:
            self.shards.add(shard)

    def note_sound(self, record_id: str) -> None:
        """That a record is right by now."""
        self.unsound.pop(record_id, None)

    def give_up(self, record_id: str) -> None:
        """That a record that was noted as unsound cannot be made right."""
        self._given_up.add(record_id)

    def fixes(
        self,
        findings: Iterable[Finding],
        *,
        without: frozenset[str] = frozenset(),
        homeless: frozenset[str] = frozenset(),
    ) -> Iterator[Fix]:
        """What to write about the records that findings name, but for those of `without`.

        `homeless` are others, which stand in places that are not theirs.
        """
        named = {finding.subject for finding in findings if finding.rule in RULES}
        told = sorted((named - without) | homeless)
        names = set(told[:RECORDS_MAX])
        if not names:
            return
        if len(told) > RECORDS_MAX:
            # The others are not right either: nothing that follows from them may be told.
            self.unsound.update(dict.fromkeys(told[RECORDS_MAX:]))
        try:
            journaled = newest_records(
                self._pool, self._pool.keys.shards, lambda line: shown(line.record_id) in names
            )
        except (Corrupt, JournalUnavailable) as problem:
            yield from (self._refusal(name, str(problem)) for name in sorted(names))
            return
        for name in sorted(names - {shown(record_id) for record_id in journaled}):
            yield self._refusal(name, "the journal has no such record; a person has to decide")
        for record_id, newest in sorted(journaled.items()):
            fix = self._fix(record_id, newest)
            if fix is not None:
                yield fix
        if len(told) > RECORDS_MAX:
            yield self._refusal(told[-1], f"one of {len(told) - RECORDS_MAX} more; repair these, then again")

    def _fix(self, record_id: str, newest: Journaled) -> Fix | None:
        self.note_unsound(record_id, newest.shard, None)
        stored = self._pool.store.read([(newest.shard, record_id)])[0]
        try:
            value, content = newest.line.value, codec.decode(newest.line.kind, bytes(newest.line.record))
        except Corrupt as problem:
            return self._refusal(record_id, str(problem))
        if content_of(value) is None:
            return self._refusal(record_id, "the journal has it as it is; a person has to decide")
        self.unsound[record_id] = content.user_id
        if stored == value and not _is_wrong(record_id, value, content):
            self.note_sound(record_id)
            return None
        why = self._why_not(record_id, newest, stored, content)
        if why is not None:
            return self._refusal(record_id, why, content.user_id)
        return Fix(
            action=Repair.JOURNAL,
            subject=shown(record_id),
            detail=_detail(stored, value, content),
            act=lambda: self._put_back(record_id, newest, stored, content),
            user_id=content.user_id,
            overwrites="" if stored is None else told_text(stored),
        )

    def _refusal(self, record_id: str, why: str, user_id: str | None = None) -> Fix:
        self.unsound[record_id] = user_id
        self._given_up.add(record_id)
        return refusal(Repair.JOURNAL, record_id, why, user_id)

    def _why_not(
        self, record_id: str, newest: Journaled, stored: bytes | None, content: codec.Record
    ) -> str | None:
        if not newest.is_chain:
            return "its versions in the journal do not follow each other; a person has to decide"
        if own_id(content) != record_id:
            return f"the journal has {shown(own_id(content))} under its id; a person has to decide"
        if stored is None or _is_anothers(record_id, stored):
            return None
        if told_version(stored) > newest.line.version:
            return f"the journal has it only up to version {newest.line.version}; a person has to decide"
        return None

    def _put_back(
        self, record_id: str, newest: Journaled, stored: bytes | None, content: codec.Record
    ) -> str | None:
        value, pool = newest.line.value, self._pool
        if stored != value:
            key = pool.keys.records(newest.shard, pool.keys.bucket_of(record_id))
            look = pool.mender.record_look(newest.shard, record_id, stored)
            if not pool.mender.mend(Mending([look], [Write("HSET", key, [record_id, value])])):
                return CHANGED
        self.note_sound(record_id)
        change = next_version(record_id, value, content)
        if change is not None:
            # Where somebody has gone on from what was put back, the journal tells of that.
            commit_next(pool, newest.shard, change, {record_id: newest})
        return None


def next_version(record_id: str, before: bytes, content: codec.Record) -> RecordChange | None:
    """The same content as the next version of the record; None for what has none, or would lose something."""
    if isinstance(content, Archived) or content.schema_version > SCHEMA_VERSION:
        return None
    command_id = f"repair:{new_command_id()}"
    applied = (content.applied + short_id(command_id))[-APPLIED_MAX * SHORT_ID_CHARS :]
    after = msgspec.structs.replace(content, version=_version(before) + 1, applied=applied)
    is_trade = isinstance(after, Trade)
    return RecordChange(
        kind=codec.TRADE_KIND if is_trade else codec.LEDGER_KIND,
        record_id=record_id,
        user_id=after.user_id,
        before=before,
        after=codec.pack_trade(after) if isinstance(after, Trade) else codec.pack_ledger(after),
        trade_before=content if isinstance(content, Trade) else None,
        trade_after=after if isinstance(after, Trade) else None,
        next_expiry=next_expiry(after) if isinstance(after, Ledger) else None,
        command_id=command_id,
    )


def _is_anothers(record_id: str, stored: bytes) -> bool:
    """Whether what stands there is another record, whose version says nothing of this one."""
    content = content_of(stored)
    return content is not None and own_id(content) != record_id


def _is_wrong(record_id: str, value: bytes, content: codec.Record) -> bool:
    return bool(record_rules.record_header(record_id, codec.read_header(value), content))


def intact_version(value: bytes) -> int:
    """The version of a stored value that is what it says; 0 of one that is not."""
    try:
        header, body = codec.split(value)
        is_intact = codec.digest_of(body) == header.digest
        return (
            header.version if is_intact and codec.decode(header.kind, body).version == header.version else 0
        )
    except Corrupt:
        return 0


def told_version(value: bytes) -> int:
    """The version that a stored value may be of: its content's, or by the header of one that is torn."""
    try:
        header, body = codec.split(value)
        if codec.digest_of(body) != header.digest:
            return header.version
        return codec.decode(header.kind, body).version
    except Corrupt:
        return _version(value)


def _version(value: bytes) -> int:
    """0 where the header cannot be read."""
    try:
        return codec.read_header(value).version
    except Corrupt:
        return 0


def _detail(stored: bytes | None, value: bytes, content: codec.Record) -> str:
    version = _version(value)
    match stored:
        case None:
            was = "nothing"
        case bytes() if stored == value:
            was = "a header that is not its content's"
        case _:
            kept = intact_version(stored)
            was = f"{'another ' if kept == version else ''}version {kept}" if kept else _UNREADABLE
    next_one = "" if isinstance(content, Archived) else f", as version {version + 1}"
    return f"{was} → the journal's version {version}{next_one}"


def told_text(stored: bytes) -> str:
    """A stored value for the log: its JSON if it can be read, else in hex."""
    try:
        return codec.split(stored)[1].decode()
    except (Corrupt, UnicodeDecodeError):
        return stored.hex()
