"""The store: reads records and commits changes of them, all or nothing per shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from tradepool.errors import Fenced, VersionConflict
from tradepool.model.codec import COMPARED_CHARS, unpack
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.store.connection import Client, routed
from tradepool.store.counting import Counting
from tradepool.store.draft import CommitPlan
from tradepool.store.fence import RESTORE_SCRIPT, commit_sha
from tradepool.store.keys import BUCKETS, Keys
from tradepool.store.lookups import Lookups
from tradepool.store.plan import RecordChange, plan_commit
from tradepool.store.progress import Progress
from tradepool.store.translation import text_of, translated

__all__ = ["RedisStore"]

_SCAN_COUNT = 500
_READ_PAGE = 500
_LABELS_SHOWN = 3


class RedisStore(Counting, Progress, Lookups):
    """Records, and everything that follows from them, on one server.

    Never loads the commit script: a server without it is `Fenced`. Every method raises
    StoreUnavailable when the server cannot be reached; nothing is cached but the generation.
    """

    def __init__(self, client: Client, keys: Keys, settings: Settings) -> None:
        Counting.__init__(self, client, keys)
        self._settings = settings

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

        What it writes belongs to the generation that was last asked for (`generation`).

        Raises: Fenced; StoreUnavailable, after which any shard's changes may be written: read again.
        """
        answers = self._commit_each(changes)
        return {shard: answer for shard, answer in answers.items() if isinstance(answer, str)}

    def _commit_each(self, changes: Mapping[int, Sequence[RecordChange]]) -> dict[int, str | VersionConflict]:
        plans = {
            shard: plan_commit(self.keys, shard, of_shard, recent_max=self._settings.recent_max)
            for shard, of_shard in changes.items()
        }
        answers = self._run(list(plans.values()), self._generation or self.generation())
        return {
            shard: _conflict(shard, plan, answer) if isinstance(answer, list) else text_of(answer)
            for (shard, plan), answer in zip(plans.items(), answers, strict=True)
        }

    def _run(self, plans: Sequence[CommitPlan], generation: str) -> list[Any]:
        """What the server answers to each plan."""
        try:
            with translated():
                pipeline = self._client.pipeline(transaction=False)
                for plan in plans:
                    command = ("EVALSHA", commit_sha(generation), len(plan.keys), *plan.keys, *plan.argv)
                    pipeline.execute_command(*command, **routed(self._client, plan.keys[0]))
                return pipeline.execute()
        except Fenced:
            self._generation = ""
            raise

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
            records = (unpack(value) for value in self.read(page) if value is not None)
            yield from (record for record in records if isinstance(record, Trade) and record.is_open)

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


def _conflict(shard: int, plan: CommitPlan, failed: Sequence[int]) -> VersionConflict:
    labels = [plan.checks[number - 1] for number in failed[:_LABELS_SHOWN]]
    more = f" and {len(failed) - len(labels)} more" if len(failed) > len(labels) else ""
    return VersionConflict(f"shard {shard:02x}: somebody else was first at {', '.join(labels)}{more}")
