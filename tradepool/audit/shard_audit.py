"""One shard, record by record: Redis against the journal, and every record against the rules.

Nothing is locked, so the order of the reads makes the cut consistent. The journal is read first and
Redis after it: Redis may be ahead, but never behind. What is ahead is settled by waiting for the
journal and reading it again. A new trade is in its indexes by the same commit, so indexes are read
after the records for what is missing, and doubts about them are read again record by record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from tradepool.audit.at_rest import JOURNAL_WAIT_S
from tradepool.audit.counter_audit import CounterAudit
from tradepool.audit.expiry_audit import compare_expiries
from tradepool.audit.index_audit import IndexAudit
from tradepool.audit.relation_audit import RelationAudit
from tradepool.audit.report import Finding
from tradepool.audit.rules import record_rules
from tradepool.audit.rules.file_rules import Sums, bucket_sums
from tradepool.audit.rules.index_rules import Listed, index_extra
from tradepool.audit.rules.key_rules import key_value
from tradepool.audit.rules.record_rules import Compared, Seen
from tradepool.audit.shard_records import ShardRecords
from tradepool.batching import batched
from tradepool.errors import Corrupt
from tradepool.files.point import Place
from tradepool.files.reading import Latest, read_lines
from tradepool.model.archived import Archived
from tradepool.store.key_families import symbol_of, user_of
from tradepool.store.progress import ShardDigest
from tradepool.store.redis_store import RedisStore
from tradepool.store.translation import text_of
from tradepool.store.watermark import Watermark

__all__ = ["Named", "ShardAudit", "newest_of_user"]

_USERS_BATCH = 200
_RULES = (record_rules.missing_in_redis, record_rules.stale_in_redis, record_rules.different_in_redis)


class Named:
    """Users and symbols that keys of a shard are named after; a fault may be that they have no records."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.symbols: set[str] = set()

    def note(self, key: str) -> None:
        """A key of that name is there."""
        user_id, symbol = user_of(key), symbol_of(key)
        self.users |= set() if user_id is None else {user_id}
        self.symbols |= set() if symbol is None else {symbol}


class ShardAudit:
    """The audit of one shard as of `now_us` (µs).

    `findings`, `records` (how many were read), `undecided` (what could not be told) and `archived` (what is
    left of archived trades, by id: the archive itself is not looked into) are the result. A `stuck` shard is
    not waited for: the journal does not take what it commits. Where `sums_differ` they are a finding already.
    """

    def __init__(
        self,
        store: RedisStore,
        watermark: Watermark,
        journal: Path,
        shard: int,
        *,
        now_us: int,
        stuck: bool = False,
        sums_differ: bool = False,
    ) -> None:
        self._store = store
        self._watermark = watermark
        self._journal = journal
        self._shard = shard
        self._now_us = now_us
        self._is_stuck = stuck
        self._do_sums_differ = sums_differ
        self._records = ShardRecords(now_us=now_us, place=(store.keys, shard))
        self._findings: list[Finding] = []
        self.undecided: list[str] = []

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self._records.seen)

    @property
    def archived(self) -> dict[str, Archived]:
        """What is left of the shard's archived trades."""
        return self._records.archived

    @property
    def findings(self) -> list[Finding]:
        """What was found."""
        return self._records.findings + self._findings

    def run(
        self,
        journaled: Mapping[str, Latest] | None,
        end: Place | None,
        *,
        unusable: Collection[str] = (),
        named: Named | None = None,
    ) -> None:
        """Compare everything of the shard with what the journal held a moment ago; None: it is not known.

        `end` is the place up to which it was read. `unusable` are users with a key of a wrong type: their
        indexes and counters are left out. `named` are users and symbols of keys that were there before.
        """
        named = named or Named()
        listed = set(self._store.users(self._shard))
        users = (listed | named.users).difference(unusable)
        noted = self._noted(sorted(users))
        unusable = {*unusable, *(users - noted.keys())}
        before = self._store.revisions(noted)
        sums = self._sums()
        self._scan()
        stood_still = self._sums() == sums
        if journaled is not None:
            self._compare_journal(journaled, end)
        if sums is not None and stood_still and not (self._do_sums_differ or self._records.unsound):
            self._compare_sums(sums)
        self._find_ghosts(listed)
        # Of whom nothing but keys is there is not missing among the users: the keys are too many.
        without_records = named.users - self._records.users
        self._records.users |= without_records
        for symbol in named.symbols:
            self._records.symbols[symbol] |= set()
        self._compare_others(before, unusable, noted, known_users=listed | without_records)

    def _find_ghosts(self, listed: set[str]) -> None:
        """Users come with their first record, and records stay; whose an unsound one is, nobody knows."""
        if not self._records.unsound:
            for user_id in sorted(listed - self._records.users):
                what = "user with a record"
                ghost = Listed(user_id, "the shard's users", is_listed=True, belongs=False, what=what)
                self._findings += index_extra(ghost)

    def _scan(self) -> None:
        """Every record; one in a bucket that is not its id's is found by nobody who asks for it."""
        strays: dict[str, int] = {}
        bucket_of = self._store.keys.bucket_of
        for bucket, page in self._store.scan_buckets(self._shard):
            for name, value in page.items():
                record_id = text_of(name)
                if bucket_of(record_id) == bucket:
                    self._records.look_at(record_id, value)
                else:
                    strays[record_id] = bucket
        for record_id, bucket in strays.items():
            told = f"it stands in bucket {bucket:x}, not in {bucket_of(record_id):x}"
            self._findings.append(record_rules.record_header.finding(record_id, told))
            if record_id not in self._records.seen:
                self._records.unsound.add(record_id)

    def run_user(
        self, user_id: str, journaled: Mapping[str, Latest] | None, *, unusable: Collection[str] = ()
    ) -> None:
        """Compare what belongs to one user with what the journal holds of it; None: it is not known."""
        noted = self._noted([user_id])
        unusable = {*unusable} if noted else {*unusable, user_id}
        before = self._store.revisions(noted)
        self._records.users.add(user_id)
        ids = {*self._store.user_trade_ids(user_id), *self._store.ledger_ids(user_id), *(journaled or ())}
        record_ids = sorted(ids)
        values = self._store.read([(self._shard, record_id) for record_id in record_ids])
        for record_id, value in zip(record_ids, values, strict=True):
            if value is not None:
                self._records.look_at(record_id, value)
        if journaled is not None:
            self._compare_journal(journaled, None)
        self._compare_others(before, unusable, noted, user_id)

    def _noted(self, user_ids: list[str]) -> dict[str, tuple[str, ...]]:
        """What users' last commits have changed, of those of whom that can be read."""
        found: dict[str, tuple[str, ...]] = {}
        for batch in batched(user_ids, _USERS_BATCH):
            for user_id, ids in zip(batch, self._store.noted_changes(batch), strict=True):
                if ids is None:
                    name = self._store.keys.changed(self._shard, user_id)
                    self._findings += key_value(name, "it does not begin with 16 digits")
                else:
                    found[user_id] = ids
        return found

    def _sums(self) -> ShardDigest | None:
        """What the store keeps of each bucket; None where it cannot be read, which the digest level tells."""
        try:
            return self._store.digest(self._shard)
        except (Corrupt, ValueError):
            return None

    def _compare_sums(self, kept: ShardDigest) -> None:
        """Each bucket's sums with its records. Where commits go on, the journal vouches for their total."""
        buckets = {bucket: Sums(*sums) for bucket, sums in kept.buckets.items()}
        self._findings += bucket_sums(self._shard, buckets, self._records.sums(self._store.keys))

    def _compare_others(
        self,
        before: Mapping[str, int],
        unusable: Collection[str],
        noted: Mapping[str, Collection[str]],
        user_id: str | None = None,
        *,
        known_users: Collection[str] | None = None,
    ) -> None:
        """What stands beside the records, and what several of them must agree in."""
        self._findings += compare_expiries(
            self._store, self._shard, self._records.expiries, user_id=user_id, without=self._records.unsound
        )
        indexes = IndexAudit(self._store, self._shard, self._records, unusable, noted)
        if known_users is None:
            # Of one user it is not known yet; nobody needs to know a user without records.
            known_users = () if self._records.seen else before
        indexes.run(known_users={*known_users, *unusable}, user_id=user_id)
        relations = RelationAudit(self._store, self._shard, self._records, now_us=self._now_us)
        self._findings += relations.findings()
        counters = CounterAudit(self._store, self._shard, self._records)
        counters.run(before, without={*unusable, *indexes.tainted})
        self._findings += indexes.findings + counters.findings
        tainted = (f"the counters of user {user_id}, who has a bad record" for user_id in indexes.tainted)
        self.undecided += [*indexes.undecided, *counters.undecided, *sorted(tainted)]

    def _compare_journal(self, journaled: Mapping[str, Latest], end: Place | None) -> None:
        """Against the newest versions up to `end` of the journal; None: up to its beginning."""
        ahead: dict[str, Seen] = {}
        seen_of, unsound = self._records.seen, self._records.unsound
        for record_id, seen in seen_of.items():
            latest = journaled.get(record_id)
            if latest is None or seen.version > latest.version:
                ahead[record_id] = seen
            elif seen != (latest.version, latest.digest):
                self._judge(Compared(record_id, seen, latest))
        for record_id in journaled.keys() - seen_of.keys() - unsound:
            self._judge(Compared(record_id, None, journaled[record_id]))
        if ahead and self._is_stuck:
            self.undecided.append(
                f"{len(ahead)} records of shard {self._shard:02x} that are not journaled yet"
            )
        elif ahead:
            self._settle(ahead, end)

    def _judge(self, record: Compared) -> None:
        self._records.unsound.add(record.record_id)
        for each in _RULES:
            self._findings += each(record)

    def _settle(self, ahead: dict[str, Seen], end: Place | None) -> None:
        """What Redis had and the journal had not yet must be there once the journal has caught up."""
        self._watermark.wait({self._shard: self._store.last_position(self._shard)}, JOURNAL_WAIT_S)
        journaled = {
            (line.record_id, line.version, line.digest)
            for line in read_lines(self._journal, since=end)
            if line.shard == self._shard and line.record_id in ahead
        }
        for record_id, seen in ahead.items():
            if (record_id, *seen) not in journaled:
                self._records.unsound.add(record_id)
                self._findings += record_rules.missing_in_journal(Compared(record_id, seen, None))


def newest_of_user(journal: Path, shard: int, user_id: str) -> dict[str, Latest]:
    """The newest journaled versions of the user's records; reads all of the journal.

    Raises: as `read_lines`.
    """
    mark = b'"user_id":' + msgspec.json.encode(user_id)
    return {
        line.record_id: Latest(line.version, line.digest, line.position)
        for line in read_lines(journal)
        if line.shard == shard and mark in bytes(line.record)
    }
