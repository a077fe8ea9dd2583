"""A store with its journal, stepped by hand, and what a recovery must bring back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path

import redis

from tests.store_changes import archiving, cancelled, change, filled, ledger_change, new_trade
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.journaling.recovery import RecoveryReport, recover
from tradepool.journaling.writer import JournalWriter
from tradepool.model.codec import encode_ledger, unpack_trade
from tradepool.model.ids import slot_of_user
from tradepool.model.kinds import Role, Status
from tradepool.model.ledger import Hold, Ledger, next_expiry
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.snapshots import write_snapshot
from tradepool.store.keys import Keys
from tradepool.store.progress import ShardDigest
from tradepool.store.redis_store import RedisStore

USERS = ("ann", "bob", "cy", "dora", "eve")


class PoolAtWork:
    """One process's journal and writer on a server; nothing runs by itself."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.keys = Keys(settings.shard_count)
        self.store = RedisStore(client, self.keys, settings)
        self.journal = Journal(
            settings.data_dir / JOURNAL_NAME, settings.shard_count, segment_bytes=settings.segment_bytes
        )
        self._numbers = count(1)
        self.notified: dict[int, str] = {}
        self.writer = JournalWriter(
            client, self.keys, self.journal, lambda positions, _: self.notified.update(positions)
        )

    @property
    def log(self) -> Path:
        return self.journal.path

    def recover(self) -> RecoveryReport:
        return recover(self.client, self.keys, self.journal, self.settings)

    def begin(self) -> RecoveryReport:
        report = self.recover()
        self.writer.take_over()
        return report

    def drain(self) -> int:
        lines = 0
        while written := self.writer.step(block_ms=None):
            lines += written
        return lines

    def add(self, user_id: str = "ann", **fields: object) -> Trade:
        """One trade, filled in a second commit."""
        trade = new_trade(user_id, **fields)
        shard = self.keys.shard_of_user(user_id)
        if self.keys.home_shard(trade.trade_id) is None:
            self.store.put_routes({trade.trade_id: slot_of_user(user_id)})
        self.store.commit(shard, [change(None, trade, task_id="task")])
        self.store.commit(shard, [change(trade, done := filled(trade, fill_id=f"v-{trade.trade_id}"))])
        return done

    def add_closed(self, user_id: str) -> None:
        """A trade that made 10, and its exit."""
        entered = self.add(user_id)
        left = filled(entered, Role.EXIT, fill_id=f"x-{entered.trade_id}", price=110)
        self.store.commit(self.keys.shard_of_user(user_id), [change(entered, left)])

    def archive_closed(self, user_id: str) -> None:
        """Leave of each of the user's completed trades what archiving leaves."""
        shard = self.keys.shard_of_user(user_id)
        ids = list(self.store.user_trade_ids(user_id))
        trades = [unpack_trade(value) for value in self.store.read([(shard, i) for i in ids]) if value]
        done = [archiving(trade) for trade in trades if trade.status == Status.COMPLETED]
        if done:
            self.store.commit(shard, done)

    def cancel_new(self, user_id: str) -> None:
        """Two versions in one commit."""
        trade = new_trade(user_id)
        changes = [change(None, trade), change(trade, cancelled(trade))]
        self.store.commit(self.keys.shard_of_user(user_id), changes)

    def keep_tokens(self, user_id: str, version: int = 1) -> None:
        """A ledger; of two versions in a row one has a reservation, for some users the even ones."""
        is_reserved = (version + len(user_id)) % 2
        hold = Hold(asset="USDT", amount=Decimal(1), reserved_at=0, expires_at=version)
        kept = {"order": hold} if is_reserved else {}
        ledger = Ledger(user_id=user_id, version=version, updated_at=version, reservations=kept)
        before = self.store.read([(self.keys.shard_of_user(user_id), f"{user_id}\x1fdefault")])[0]
        expiry = next_expiry(ledger)
        made = ledger_change(user_id, before, encode_ledger(ledger), version, next_expiry=expiry)
        self.store.commit(self.keys.shard_of_user(user_id), [made])

    def trade_a_while(self) -> None:
        """Something of everything: several users, versions, foreign ids, keys, ledgers."""
        for user_id in USERS:
            self.add(user_id, idempotency_key=f"key-{next(self._numbers)}")
            self.add(user_id, trade_id=f"trade:{next(self._numbers)}")
            self.add_closed(user_id)
            self.cancel_new(user_id)
            self.keep_tokens(user_id, version=self._ledger_version(user_id) + 1)

    def lose_everything(self) -> None:
        """The server comes back empty, and without scripts."""
        self.client.flushall()
        self.client.script_flush()

    def come_back_as(self, image: Mapping[bytes, bytes]) -> None:
        """The server comes back as it was when `image` was taken."""
        self.lose_everything()
        for key, dump in image.items():
            self.client.restore(key, 0, dump)

    def _ledger_version(self, user_id: str) -> int:
        value = self.store.read([(self.keys.shard_of_user(user_id), f"{user_id}\x1fdefault")])[0]
        return 0 if value is None else int(value[:8], 16)


def snapshot(pool: PoolAtWork) -> None:
    """Journal what there is and write it to the snapshot."""
    pool.drain()
    write_snapshot(pool.store, pool.journal, pool.settings.data_dir)


def digests(pool: PoolAtWork) -> list[ShardDigest]:
    """Of each shard."""
    return [pool.store.digest(shard) for shard in range(pool.keys.shard_count)]


@contextmanager
def at_work(client: redis.Redis, settings: Settings) -> Iterator[PoolAtWork]:
    """A recovered pool whose writer has its place."""
    pool = PoolAtWork(client, settings)
    try:
        pool.begin()
        yield pool
    finally:
        pool.journal.close()


@contextmanager
def with_trades(client: redis.Redis, settings: Settings) -> Iterator[PoolAtWork]:
    """The same on an emptied server: an open trade of each of `USERS`, a closed one of ann, all journaled."""
    client.script_flush()
    client.flushall()
    with at_work(client, settings) as pool:
        for user_id in USERS:
            pool.add(user_id)
        pool.add_closed("ann")
        pool.drain()
        yield pool


def image_of(client: redis.Redis) -> dict[bytes, bytes]:
    """All of the server's keys, to be restored later."""
    return {key: client.dump(key) for key in client.scan_iter()}


def contents(pool: PoolAtWork) -> dict[bytes, object]:
    """What readers and audits can see: records, indexes, counters, digests, claims, routes; not the
    outboxes, revisions, latencies and the hashes of journal and pool."""
    own = {key.encode() for key in (pool.keys.journal, pool.keys.meta, pool.keys.latencies)}
    own |= {pool.keys.changed(pool.keys.shard_of_user(user_id), user_id).encode() for user_id in USERS}
    return {
        key: value
        for key in pool.client.scan_iter()
        if key not in own and (value := _content(pool.client, key)) is not None
    }


def _content(client: redis.Redis, key: bytes) -> object:
    match client.type(key):
        case b"hash":
            # A sum of nothing may be kept or not.
            return {field: value for field, value in client.hgetall(key).items() if value != b"0"}
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"set":
            return client.smembers(key)
        case b"string":
            return client.get(key)
        case _:
            return None
