"""The store: reads records and commits changes of them, all or nothing per shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

import msgspec
import redis

from tradepool.errors import VersionConflict
from tradepool.model.codec import COMPARED_CHARS, unpack_trade
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.store.draft import REVISION_FIELD, CommitPlan
from tradepool.store.fence import COMMIT_SHA, GENERATION_FIELD, RESTORE_SCRIPT
from tradepool.store.indexes import Indexes
from tradepool.store.keys import BUCKETS, Keys
from tradepool.store.limbs import join_limbs
from tradepool.store.lookups import Lookups
from tradepool.store.plan import RecordChange, plan_commit
from tradepool.store.translation import text_of, translated
from tradepool.store.watermark import parse_watermark

__all__ = ["JournaledShard", "RedisStore", "ShardDigest"]

_POSITION_FIELD = "position"
_DIGEST_CHARS = 16
_SCAN_COUNT = 500
_READ_PAGE = 500
_LABELS_SHOWN = 3


class ShardDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard holds, in short."""

    position: str
    """Outbox position of the last commit in it."""
    buckets: dict[int, tuple[str, int]]
    """Bucket → XOR of the digests of its records (16 hex) and their count; empty buckets left out."""

    @property
    def digest(self) -> str:
        """XOR over the whole shard, 16 hex."""
        total = 0
        for digest, _ in self.buckets.values():
            total ^= int(digest, 16)
        return f"{total:016x}"

    @property
    def count(self) -> int:
        """Records in the shard."""
        return sum(count for _, count in self.buckets.values())


class JournaledShard(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal's writer has published about a shard."""

    position: str
    """The newest outbox position that is on disk."""
    digest: str
    """XOR of the digests of its records, 16 hex."""
    count: int


class RedisStore(Indexes, Lookups):
    """Records, and everything that follows from them, on one server.

    Never loads the commit script: a server without it is `Fenced`. Every method raises
    StoreUnavailable when the server cannot be reached; nothing is cached here.
    """

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings) -> None:
        Indexes.__init__(self, client, keys)
        self._settings = settings

    def commit(self, shard: int, changes: Sequence[RecordChange]) -> str:
        """Write all `changes` of the shard or none; the outbox position they stand at.

        On return the server has them; the journal may not yet (`Watermark.wait`).

        Raises: VersionConflict when a record is no longer what its change was decided on, or a new
        idempotency key or fill claim is taken (`idempotency_owner`, `claim_owner` say by whom); and as
        `commit_all`.
        """
        answer = self._commit_each({shard: changes})[shard]
        if isinstance(answer, VersionConflict):
            raise answer
        return answer

    def commit_all(self, changes: Mapping[int, Sequence[RecordChange]]) -> dict[int, str]:
        """`commit` of each shard, in one round trip: the positions of those that met no conflict.

        Raises: Fenced; StoreUnavailable, after which any shard's changes may be written: read again.
        """
        answers = self._commit_each(changes)
        return {shard: answer for shard, answer in answers.items() if isinstance(answer, str)}

    def _commit_each(self, changes: Mapping[int, Sequence[RecordChange]]) -> dict[int, str | VersionConflict]:
        plans = {
            shard: plan_commit(self.keys, shard, of_shard, recent_max=self._settings.recent_max)
            for shard, of_shard in changes.items()
        }
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for plan in plans.values():
                pipeline.evalsha(COMMIT_SHA, len(plan.keys), *plan.keys, *plan.argv)
            answers = pipeline.execute()
        return {
            shard: _conflict(shard, plan, answer) if isinstance(answer, list) else text_of(answer)
            for (shard, plan), answer in zip(plans.items(), answers, strict=True)
        }

    def restore(self, shard: int, changes: Sequence[RecordChange]) -> None:
        """What `commit` does, without outbox and through a closed fence: for recovery only.

        Raises: VersionConflict, Corrupt, StoreUnavailable.
        """
        plan = plan_commit(self.keys, shard, changes, recent_max=self._settings.recent_max, with_outbox=False)
        with translated():
            answer = self._client.eval(RESTORE_SCRIPT, len(plan.keys), *plan.keys, *plan.argv)
        if isinstance(answer, list):
            raise _conflict(shard, plan, answer)

    def advance_outbox(self, shard: int, position: str) -> None:
        """Have the shard's next commit stand after `position`, as the journal will expect.

        Does nothing where the outbox is there already. Otherwise everything in it is older than the
        journal and goes.
        """
        if parse_position(position) <= parse_position(self.last_position(shard)):
            return
        with translated():
            # In one transaction: a server must never have the one without the other.
            pipeline = self._client.pipeline(transaction=True)
            pipeline.xadd(self.keys.outbox(shard), {"advance": ""}, id=position, maxlen=0, approximate=False)
            pipeline.hset(self.keys.digest(shard), _POSITION_FIELD, position)
            problem = pipeline.execute(raise_on_error=False)[0]
            if isinstance(problem, Exception) and "equal or smaller" not in str(problem):
                raise problem

    def read(self, records: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """The stored values (header and JSON) of (shard, record id) pairs, in order; None: no such record."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, (shard, record_id) in enumerate(records):
            groups[self.keys.records(shard, self.keys.bucket_of(record_id))].append(i)
        values: list[bytes | None] = [None] * len(records)
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for key, indices in groups.items():
                pipeline.hmget(key, [records[i][1] for i in indices])
            for indices, found in zip(groups.values(), pipeline.execute(), strict=True):
                for i, value in zip(indices, found, strict=True):
                    values[i] = value
        return values

    def read_with_open(self, shard: int, user_id: str, trade_id: str) -> tuple[bytes | None, bool]:
        """A trade's stored value and whether it is listed as open, of one moment."""
        with translated():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(self.keys.records(shard, self.keys.bucket_of(trade_id)), trade_id)
            pipeline.zscore(self.keys.open_trades(shard), self.keys.open_member(user_id, trade_id))
            value, score = pipeline.execute()
        return value, score is not None

    def open_trades(self, shard: int) -> Iterator[Trade]:
        """The open trades of one shard, read in pages."""
        return self._open_among(shard, self.open_ids(shard))

    def open_trades_of_user(self, user_id: str) -> Iterator[Trade]:
        """The open trades of one user, read in pages."""
        return self._open_among(self.keys.shard_of_user(user_id), self.open_ids_of_user(user_id))

    def _open_among(self, shard: int, trade_ids: Iterator[str]) -> Iterator[Trade]:
        while page := [(shard, trade_id) for trade_id in islice(trade_ids, _READ_PAGE)]:
            trades = (unpack_trade(value) for value in self.read(page) if value is not None)
            yield from (trade for trade in trades if trade.is_open)

    def scan_records(self, shard: int, kind: str | None = None) -> Iterator[tuple[str, bytes]]:
        """(record id, stored value) of every record (of a kind), in bounded memory, in no order.

        A record that is there throughout comes at least once, and twice where a hash is resized
        meanwhile.
        """
        for bucket in range(BUCKETS):
            key = self.keys.records(shard, bucket)
            cursor = 0
            while True:
                with translated():
                    cursor, found = self._client.hscan(key, cursor, count=_SCAN_COUNT)
                for record_id, value in cast("dict[bytes, bytes]", found).items():
                    if kind is None or value[COMPARED_CHARS] == ord(kind):
                        yield text_of(record_id), value
                if cursor == 0:
                    break

    def digest(self, shard: int) -> ShardDigest:
        """The shard's digests and the position of its last commit, of one moment."""
        with translated():
            fields = self._client.hgetall(self.keys.digest(shard))
        stored = {text_of(field): text_of(value) for field, value in fields.items()}
        position = stored.pop(_POSITION_FIELD, START_POSITION)
        buckets = {int(bucket, 16): _bucket_digest(text) for bucket, text in stored.items()}
        return ShardDigest(position=position, buckets=buckets)

    def journaled(self, shard: int) -> JournaledShard:
        """How far the journal is with the shard, and what it holds of it."""
        return self._journaled([shard])[0]

    def journaled_shards(self) -> list[JournaledShard]:
        """`journaled` of each shard, from shard 0 on."""
        return self._journaled(self._shards())

    def outbox_lengths(self) -> list[int]:
        """Commits of each shard that wait in its outbox for the journal."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard in self._shards():
                pipeline.xlen(self.keys.outbox(shard))
            return [int(length) for length in pipeline.execute()]

    def last_position(self, shard: int) -> str:
        """The outbox position of the shard's last commit; `START_POSITION` before the first."""
        return self.positions([shard])[0]

    def last_positions(self) -> list[str]:
        """`last_position` of each shard, from shard 0 on."""
        return self.positions(self._shards())

    def positions(self, shards: Sequence[int]) -> list[str]:
        """`last_position` of each of `shards`, in one round trip."""
        if not shards:
            return []
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard in shards:
                pipeline.hget(self.keys.digest(shard), _POSITION_FIELD)
            return [START_POSITION if found is None else text_of(found) for found in pipeline.execute()]

    def counters(self, user_id: str) -> dict[str, int]:
        """The user's counters, as `model.counters.contribution` names them; zeros left out."""
        return self.counters_with_revision(user_id)[0]

    def counters_with_revision(self, user_id: str) -> tuple[dict[str, int], int]:
        """The user's counters and how many commits have touched the user, of one moment."""
        with translated():
            stored = self._client.hgetall(self._counters(user_id))
        fields = {text_of(field): int(value) for field, value in stored.items()}
        revision = fields.pop(REVISION_FIELD, 0)
        return join_limbs(fields), revision

    def revisions(self, shard: int) -> dict[str, int]:
        """How many commits have touched each user of the shard."""
        users = sorted(set(self.users(shard)))
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for user_id in users:
                pipeline.hget(self.keys.counters(shard, user_id), REVISION_FIELD)
            return {
                user_id: int(found or 0) for user_id, found in zip(users, pipeline.execute(), strict=True)
            }

    def revision(self, user_id: str) -> str:
        """Text that differs after each commit that touched the user, and after each recovery."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hget(self.keys.meta, GENERATION_FIELD)
            pipeline.hget(self._counters(user_id), REVISION_FIELD)
            generation, revision = pipeline.execute()
        return f"{text_of(generation or b'')}.{text_of(revision or b'0')}"

    def _counters(self, user_id: str) -> str:
        return self.keys.counters(self.keys.shard_of_user(user_id), user_id)

    def _journaled(self, shards: Sequence[int]) -> list[JournaledShard]:
        with translated():
            values = self._client.hmget(
                self.keys.journal, [self.keys.journal_field(shard) for shard in shards]
            )
        return [_journaled_shard(value) for value in values]


def _conflict(shard: int, plan: CommitPlan, failed: Sequence[int]) -> VersionConflict:
    labels = [plan.checks[number - 1] for number in failed[:_LABELS_SHOWN]]
    more = f" and {len(failed) - len(labels)} more" if len(failed) > len(labels) else ""
    return VersionConflict(f"shard {shard:02x}: somebody else was first at {', '.join(labels)}{more}")


def _journaled_shard(value: bytes | str | None) -> JournaledShard:
    if value is None:
        return JournaledShard(position=START_POSITION, digest="0" * _DIGEST_CHARS, count=0)
    position, digest, count = parse_watermark(value)
    return JournaledShard(position=position, digest=digest, count=count)


def _bucket_digest(text: str) -> tuple[str, int]:
    return text[:_DIGEST_CHARS], int(text[_DIGEST_CHARS + 1 :])
