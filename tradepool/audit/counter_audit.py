"""Counters of users against the fold over their trades, live and archived."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tradepool.audit.at_rest import ATTEMPTS_MAX
from tradepool.audit.report import Finding
from tradepool.audit.rules.index_rules import summary_fold
from tradepool.audit.rules.key_rules import key_value
from tradepool.audit.shard_records import ShardRecords
from tradepool.batching import batched
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.counters import add_counters, contribution
from tradepool.model.trade import Trade
from tradepool.store.inspection import Lifetime
from tradepool.store.redis_store import RedisStore

__all__ = ["CounterAudit"]

_USERS_BATCH = 200


class CounterAudit:
    """The audit of the counters of the users in `records`; `findings` and `undecided` are the result."""

    def __init__(self, store: RedisStore, shard: int, records: ShardRecords) -> None:
        self._store = store
        self._shard = shard
        self._records = records
        self.findings: list[Finding] = []
        self.undecided: list[str] = []

    def run(self, before: Mapping[str, int], *, without: Collection[str]) -> None:
        """All users but some; one who has changed since the revisions `before` is read again by himself."""
        users = sorted(self._records.users - set(without))
        for batch in batched(users, _USERS_BATCH):
            lifetimes = self._store.lifetimes(batch)
            after = self._store.revisions(batch)
            for user_id, lifetime in zip(batch, lifetimes, strict=True):
                if after[user_id] == before.get(user_id):
                    self._check(user_id, lifetime, self._records.totals[user_id])
                else:
                    self._check_again(user_id)

    def _check_again(self, user_id: str) -> None:
        try:
            for _ in range(ATTEMPTS_MAX):
                before = self._store.revisions([user_id])
                (lifetime,), totals = self._store.lifetimes([user_id]), self._fold(user_id)
                if self._store.revisions([user_id]) == before:
                    self._check(user_id, lifetime, totals)
                    return
        except Corrupt:
            # Whoever reads the records finds that.
            pass
        self.undecided.append(f"the counters of user {user_id}")

    def _check(self, user_id: str, lifetime: Lifetime, live: Mapping[str, int]) -> None:
        """What archived and live trades come to together is what was counted over their lives."""
        name = self._store.keys.counters(self._shard, user_id)
        self.findings += key_value(name, lifetime.unreadable)
        if not lifetime.unreadable:
            fold = dict(lifetime.archived)
            add_counters(fold, live)
            self.findings += summary_fold(user_id, lifetime.counters, fold)

    def _fold(self, user_id: str) -> dict[str, int]:
        totals: dict[str, int] = {}
        for value in self._store.read_all(self._shard, self._store.user_trade_ids(user_id)):
            record = codec.unpack(value)
            if isinstance(record, Trade):
                add_counters(totals, contribution(record))
        return totals
