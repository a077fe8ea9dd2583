"""The standard level's look at what is alive: every open trade, and every ledger with an open reservation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from tradepool.audit.expiry_audit import compare_expiries
from tradepool.audit.index_audit import IndexAudit
from tradepool.audit.relation_audit import RelationAudit
from tradepool.audit.report import Finding
from tradepool.audit.shard_records import ShardRecords
from tradepool.batching import batched
from tradepool.store.redis_store import RedisStore

__all__ = ["OpenAudit"]

_BATCH = 500


class OpenAudit:
    """The audit of what is alive in one shard as of `now_us` (µs); what is closed is not read.

    `findings`, `records` (how many were read) and `undecided` are the result.
    """

    def __init__(self, store: RedisStore, shard: int, *, now_us: int) -> None:
        self._store = store
        self._shard = shard
        self._now_us = now_us
        self._records = ShardRecords(now_us=now_us)
        self.findings: list[Finding] = []
        self.undecided: list[str] = []

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self._records.seen)

    def run(self) -> None:
        """Read and check them."""
        self._read(chain(self._store.open_ids(self._shard), self._store.expiries(self._shard)))
        self.findings += compare_expiries(
            self._store, self._shard, self._records.expiries, without=self._records.unsound
        )
        indexes = IndexAudit(self._store, self._shard, self._records, ())
        indexes.check_open(None)
        self.findings += indexes.findings
        self.undecided += indexes.undecided
        # A trade that a reservation may be for is not among the open ones if it is final.
        relations = RelationAudit(self._store, self._shard, self._records, now_us=self._now_us)
        self._read(key for _, key in self._records.holds)
        self.findings += [*relations.orphans(), *self._records.findings]

    def _read(self, record_ids: Iterable[str]) -> None:
        for batch in batched(record_ids, _BATCH):
            values = self._store.read([(self._shard, record_id) for record_id in batch])
            for record_id, value in zip(batch, values, strict=True):
                if value is not None:
                    self._records.look_at(record_id, value)
