"""The store: reads records and commits changes of them, all or nothing per shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis.cluster import RedisCluster

from tradepool.batching import batched
from tradepool.errors import Fenced, VersionConflict
from tradepool.model.codec import COMPARED_CHARS, unpack
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.store.asking import ask_all
from tradepool.store.audit_reports import AuditReports
from tradepool.store.audit_runs import AuditRuns
from tradepool.store.connection import Client
from tradepool.store.counting import Counting
from tradepool.store.draft import CommitPlan
from tradepool.store.fence import RESTORE_SCRIPT, commit_sha
from tradepool.store.inspection import Inspection
from tradepool.store.keys import BUCKETS, Keys
from tradepool.store.lookups import Lookups
from tradepool.store.mark_values import MarkValues
from tradepool.store.plan import RecordChange, plan_commit
from tradepool.store.progress import Progress
from tradepool.store.revisions import Revisions
from tradepool.store.sending import has_come_to, send_plans
from tradepool.store.translation import text_of, translated

__all__ = ["RedisStore"]

_SCAN_COUNT = 128
"""Records to a bucket and round trip, about: a page of each bucket is in memory at once."""
_READ_PAGE = 500
_LABELS_SHOWN = 3


class RedisStore(Counting, Revisions, Progress, Inspection, Lookups, MarkValues, AuditReports, AuditRuns):
    """Records, and everything that follows from them, on one server.

    Never loads the commit script: a server without it is `Fenced`. Every method raises
    StoreUnavailable when the server cannot be reached; nothing is cached but the generation.
    """

    def __init__(self, client: Client, keys: Keys, settings: Settings) -> None:
        Counting.__init__(self, client, keys)
        self._settings = settings
        self._looks_itself = not isinstance(client, RedisCluster)
        self.recent_max = settings.recent_max
        """Trades that a shard's list of recent ones keeps."""

    def commit(self, shard: int, changes: Sequence[RecordChange]) -> str:
        """Write all `changes` of the shard or none; the outbox position they stand at.

        On return the server has them; the journal may not yet (`Watermark.wait`).

        Raises: VersionConflict when a record is no longer what its change was decided on, or a new
        idempotency key or fill claim is taken (`idempotency_owner`, `claim_owner` say by whom); and as
        `commit_all`.
        """
        self.generation()
        answer = self._commit_each({shard: changes})[shard]
        if isinstance(answer, VersionConflict):
            raise answer
        return answer

    def commit_all(self, changes: Mapping[int, Sequence[RecordChange]]) -> dict[int, str]:
        """`commit` of each shard, in one round trip: the positions of those that met no conflict.

        A commit that was sent again, for its answer was lost, and found itself there has met none; its
        position may be that of a later one. What is written belongs to the generation that was last asked
        for (`generation`, `commit_generation`).

        Raises: Fenced; StoreUnavailable, after which any shard's changes may be written: read again.
        """
        answers = self._commit_each(changes)
        return {shard: answer for shard, answer in answers.items() if isinstance(answer, str)}

    def commit_generation(self) -> str:
        """The generation that the next commit will belong to, for it is refused in any other.

        A single server looks when it commits, so nothing is asked here. On a cluster the shards and the
        generation are on different nodes: it is asked each time, as `generation`. Raises: as that.
        """
        return self._generation if self._generation and self._looks_itself else self.generation()

    def positions_in(self, generation: str, shards: Sequence[int]) -> list[str]:
        """`positions`, which cover all that was seen before of this server in `generation`.

        The fence is looked at after them. A server that has restarted has the old generation's name until it
        is recovered, and positions that the journal passed long ago, but may have lost what was seen.

        Raises: Fenced when it is another one, or waits for its recovery.
        """
        positions = self.positions(shards)
        if self.generation() != generation:
            raise Fenced("the server was recovered meanwhile; try the same again")
        return positions

    def _commit_each(self, changes: Mapping[int, Sequence[RecordChange]]) -> dict[int, str | VersionConflict]:
        generation = self._generation or self.generation()
        recent_max, looked_at = self._settings.recent_max, generation if self._looks_itself else None
        plans = {
            shard: plan_commit(self.keys, shard, of_shard, recent_max=recent_max, generation=looked_at)
            for shard, of_shard in changes.items()
        }
        answers, repeated = self._run(list(plans.values()), generation)
        sent_again_in = {shard: generation for place, shard in enumerate(plans) if place in repeated}
        return {
            shard: self._refusal(shard, plan, changes[shard], answer, sent_again_in.get(shard))
            if isinstance(answer, list)
            else text_of(answer)
            for (shard, plan), answer in zip(plans.items(), answers, strict=True)
        }

    def _run(self, plans: Sequence[CommitPlan], generation: str) -> tuple[list[Any], set[int]]:
        """As `send_plans`, in `generation`, which is forgotten when the server is of another."""
        try:
            return send_plans(self._client, commit_sha(generation), plans)
        except Fenced:
            self._generation = ""
            raise

    def _refusal(
        self,
        shard: int,
        plan: CommitPlan,
        changes: Sequence[RecordChange],
        failed: Sequence[int],
        sent_again_in: str | None,
    ) -> str | VersionConflict:
        """The conflict; or a position that covers `changes`, if it is they that the server found.

        That can be where they were sent again, in the generation `sent_again_in`.
        """
        if sent_again_in is not None:
            newest = {change.record_id: change.after for change in changes}
            stored = self.read([(shard, record_id) for record_id in newest])
            if all(map(has_come_to, stored, newest.values())):
                return self.positions_in(sent_again_in, [shard])[0]
        return _conflict(shard, plan, failed)

    def restore(self, shard: int, changes: Sequence[RecordChange]) -> None:
        """What `commit` does, without outbox and through a closed fence: for recovery only.

        Raises: VersionConflict, Corrupt, StoreUnavailable.
        """
        plan = plan_commit(self.keys, shard, changes, recent_max=self._settings.recent_max, with_outbox=False)
        with translated():
            answer = self._client.eval(RESTORE_SCRIPT, len(plan.keys), *plan.keys, *plan.argv)
        if isinstance(answer, list):
            raise _conflict(shard, plan, answer)

    def read(self, records: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """The stored values of (shard, record id) pairs, in order; None: there is no such record."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        bucket_of = self.keys.bucket_of
        for place, (shard, record_id) in enumerate(records):
            groups[shard, bucket_of(record_id)].append(place)
        with translated():
            answers = ask_all(
                self._client,
                [
                    ("HMGET", self.keys.records(*bucket), *(records[place][1] for place in places))
                    for bucket, places in groups.items()
                ],
            )
        values: list[bytes | None] = [None] * len(records)
        for places, found in zip(groups.values(), answers, strict=True):
            for place, value in zip(places, found, strict=True):
                values[place] = value
        return values

    def read_all(self, shard: int, record_ids: Iterable[str]) -> Iterator[bytes]:
        """The stored values of those records of one shard that there are, in order, read in pages."""
        for page in batched(record_ids, _READ_PAGE):
            values = self.read([(shard, record_id) for record_id in page])
            yield from (value for value in values if value is not None)

    def read_with_expiry(self, shard: int, ledger_id: str) -> tuple[bytes | None, int | None]:
        """A ledger's stored value and from when on it is due, µs, None: never; of one moment."""
        with translated():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hget(self.keys.records(shard, self.keys.bucket_of(ledger_id)), ledger_id)
            pipeline.zscore(self.keys.expiries(shard), ledger_id)
            value, score = pipeline.execute()
        return value, None if score is None else int(score)

    def open_trades(self, shard: int) -> Iterator[Trade]:
        """The open trades of one shard, read in pages."""
        return self._open_among(shard, self.open_ids(shard))

    def open_trades_of_user(self, user_id: str) -> Iterator[Trade]:
        """The open trades of one user, read in pages."""
        return self._open_among(self.keys.shard_of_user(user_id), self.open_ids_of_user(user_id))

    def _open_among(self, shard: int, trade_ids: Iterator[str]) -> Iterator[Trade]:
        records = map(unpack, self.read_all(shard, trade_ids))
        return (record for record in records if isinstance(record, Trade) and record.is_open)

    def scan_records(self, shard: int, kind: str | None = None) -> Iterator[tuple[str, bytes]]:
        """(record id, stored value) of every record (of a kind), in bounded memory, in no order.

        A record that is there throughout comes at least once, and twice where a hash is resized
        meanwhile (`scan_once`).
        """
        wanted = None if kind is None else ord(kind)
        for _, found in self.scan_buckets(shard):
            for record_id, value in found.items():
                if wanted is None or value[COMPARED_CHARS] == wanted:
                    yield text_of(record_id), value

    def scan_once(self, shard: int) -> Iterator[tuple[str, bytes]]:
        """`scan_records`, each record once; memory holds the shard's ids."""
        seen: set[str] = set()
        for record_id, value in self.scan_records(shard):
            if record_id not in seen:
                seen.add(record_id)
                yield record_id, value

    def scan_buckets(self, shard: int) -> Iterator[tuple[int, dict[bytes, bytes]]]:
        """`scan_records` page by page, each with the bucket that it stands in; a page of each bucket to a
        round trip, until every bucket's cursor is back where it began.
        """
        cursors = dict.fromkeys(range(BUCKETS), 0)
        while cursors:
            with translated():
                pipeline = self._client.pipeline(transaction=False)
                for bucket, cursor in cursors.items():
                    pipeline.hscan(self.keys.records(shard, bucket), cursor, count=_SCAN_COUNT)
                pages = pipeline.execute()
            for bucket, (cursor, found) in zip(list(cursors), pages, strict=True):
                yield bucket, found
                cursors[bucket] = cursor
            cursors = {bucket: cursor for bucket, cursor in cursors.items() if cursor != 0}


def _conflict(shard: int, plan: CommitPlan, failed: Sequence[int]) -> VersionConflict:
    labels = [plan.checks[number - 1] for number in failed[:_LABELS_SHOWN]]
    more = f" and {len(failed) - len(labels)} more" if len(failed) > len(labels) else ""
    return VersionConflict(f"shard {shard:02x}: somebody else was first at {', '.join(labels)}{more}")
