"""A replica takes over that lacks the last writes: nothing that was acknowledged is missing afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.loose_trades import buy, entry
from tests.servers import (
    PASSWORD,
    SENTINEL_PASSWORD,
    Server,
    detach,
    follow,
    promote,
    replica_pair,
    sentinel_of,
)
from tests.tcp_proxy import TcpProxy
from tests.waiting import eventually
from tradepool import TradePool
from tradepool.errors import Fenced, JournalUnavailable, StoreUnavailable, TradePoolError, Unavailable
from tradepool.files.reading import read_lines
from tradepool.journaling.service import JournalService
from tradepool.settings import Settings
from tradepool.store import fence
from tradepool.store.connection import connect


class Failover:
    """A primary and its replica behind one address, and a pool that knows only that address."""

    def __init__(self, primary: Server, replica: Server, proxy: TcpProxy, folder: Path) -> None:
        self.primary = primary
        self.replica = replica
        self.proxy = proxy
        self.settings = Settings(
            redis_url=f"redis://:{PASSWORD}@127.0.0.1:{proxy.port}/0",
            data_dir=folder / "pool",
            shard_count=4,
            journal_wait_s=10,
            socket_timeout_s=2,
        )
        self.failures: list[TradePoolError] = []
        self.journal = JournalService(self.settings, connect(self.settings), on_failure=self.failures.append)
        self.journal.recover()
        self.journal.start()
        self.pool = TradePool.connect(self.settings)

    def lead_to(self, server: Server) -> None:
        """Have the address lead to another server; connections to the old one break."""
        self.proxy.cut()
        self.proxy.target = ("127.0.0.1", server.port)
        self.proxy.restore()

    def wait_open(self) -> None:
        eventually(self._is_open, 30)

    def close(self) -> None:
        self.journal.close()
        self.pool.close()

    def _is_open(self) -> bool:
        try:
            return fence.is_open(self.pool.redis)
        except StoreUnavailable:
            return False


@pytest.fixture
def failover(server_binary: Path, tmp_path: Path) -> Iterator[Failover]:
    """A pool at work on the primary, the replica in step."""
    with (
        replica_pair(tmp_path) as (primary, replica),
        TcpProxy(("127.0.0.1", primary.port)) as proxy,
        closing(Failover(primary, replica, proxy, tmp_path)) as pair,
    ):
        yield pair


def holds(server: Server, pool: TradePool, trade_id: str) -> bool:
    keys = pool.store.keys
    with server.client() as client:
        return bool(
            client.hexists(keys.records(keys.home_shard(trade_id), keys.bucket_of(trade_id)), trade_id)
        )


def wait_holds(server: Server, pool: TradePool, trade_id: str) -> None:
    def is_there() -> bool:
        try:
            return holds(server, pool, trade_id)
        except redis.ConnectionError:  # a failover disconnects everybody
            return False

    eventually(is_there)


def test_a_replica_that_lacks_the_last_writes_gets_them_from_the_journal(failover):
    pool = failover.pool
    first = pool.add_trade(buy(user_id="ann"))
    wait_holds(failover.replica, pool, first.trade_id)
    detach(failover.replica)
    second = pool.add_trade(buy(user_id="ann"))
    changed = pool.add_fill(first.trade_id, entry("f1", amount="1", price="100"))
    assert not holds(failover.replica, pool, second.trade_id)

    failover.primary.kill()
    promote(failover.replica)
    failover.lead_to(failover.replica)
    failover.wait_open()
    assert holds(failover.replica, pool, second.trade_id)
    assert pool.get_trade(first.trade_id).version == changed.version
    assert pool.check_all_trades(deep=True).ok
    assert pool.add_trade(buy(user_id="ann")).durable


@pytest.mark.slow
def test_writers_are_fenced_until_the_promoted_replica_has_caught_up(failover):
    pool = failover.pool
    pool.add_trade(buy(user_id="ann"))
    failover.journal.close()
    failover.primary.kill()
    promote(failover.replica)
    failover.lead_to(failover.replica)
    with pytest.raises(Fenced):
        pool.add_trade(buy(user_id="ann"))
    with closing(JournalService(failover.settings, connect(failover.settings))) as journal:
        journal.recover()
        journal.start()
        assert pool.add_trade(buy(user_id="ann")).durable


def test_a_former_primary_that_is_promoted_again_is_fenced_though_it_has_its_old_script(failover):
    pool, primary, replica = failover.pool, failover.primary, failover.replica
    old_key = fence.commit_sha(pool.store.generation())
    asleep = TradePool.connect(failover.settings)
    wait_holds(replica, pool, asleep.add_trade(buy(user_id="ann")).trade_id)
    promote(replica)
    failover.lead_to(replica)
    follow(primary, replica.port)
    failover.wait_open()
    there = pool.add_trade(buy(user_id="ann"))
    wait_holds(primary, pool, there.trade_id)
    detach(primary)
    missing = pool.add_trade(buy(user_id="ann"))

    failover.journal.close()
    replica.kill()
    promote(primary)
    failover.lead_to(primary)
    with primary.client() as client:
        assert client.script_exists(old_key) == [True], "or this test shows nothing"
    assert not holds(primary, pool, missing.trade_id)
    assert not fence.is_open(pool.redis)
    with pytest.raises(Fenced):
        pool.add_trade(buy(user_id="ann"))
    # Who has not looked since would call the script that is there.
    reached = asleep.store.last_positions()
    with closing(asleep), pytest.raises(Fenced):
        asleep.add_trade(buy(user_id="ann"))
    assert pool.store.last_positions() == reached
    with closing(JournalService(failover.settings, connect(failover.settings))) as journal:
        journal.recover()
    assert holds(primary, pool, missing.trade_id)


@pytest.mark.slow
def test_a_commit_on_a_primary_that_was_replaced_is_never_acknowledged(failover):
    old = failover.settings.model_copy(update={"redis_url": failover.primary.url, "journal_wait_s": 0.5})
    wait_holds(failover.replica, failover.pool, failover.pool.add_trade(buy(user_id="ann")).trade_id)
    promote(failover.replica)
    failover.lead_to(failover.replica)
    failover.wait_open()
    with TradePool.connect(old) as left_behind:
        with pytest.raises(JournalUnavailable):
            left_behind.add_trade(buy(user_id="ann", trade_id="trade:1"))
        follow(failover.primary, failover.replica.port)
        with pytest.raises(Unavailable):
            left_behind.add_trade(buy(user_id="ann", trade_id="trade:1"))
    assert failover.pool.add_trade(buy(user_id="ann", trade_id="trade:1")).outcome == "applied"
    assert failover.pool.check_all_trades(deep=True).ok


def test_the_journal_takes_nothing_from_a_primary_that_was_replaced(failover):
    pool, primary = failover.pool, failover.primary
    wait_holds(failover.replica, pool, pool.add_trade(buy(user_id="ann")).trade_id)
    promote(failover.replica)
    failover.lead_to(failover.replica)
    failover.wait_open()
    journaled = pool.add_trade(buy(user_id="ann"))
    old = failover.settings.model_copy(update={"redis_url": primary.url, "durability": "redis"})
    with TradePool.connect(old) as left_behind:
        left_behind.add_trade(buy(user_id="ann"))
    failover.lead_to(primary)

    eventually(lambda: failover.failures)
    assert isinstance(failover.failures[0], Fenced)
    assert list(read_lines(failover.journal.journal.path))[-1].record_id == journaled.trade_id


@pytest.mark.slow
def test_a_half_open_connection_is_noticed_and_nothing_acknowledged_is_missing(failover):
    stop = threading.Event()
    acknowledged: list[str] = []

    def write() -> None:
        while not stop.is_set():
            try:
                acknowledged.append(failover.pool.add_trade(buy(user_id="ann")).trade_id)
            except Unavailable:
                stop.wait(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for disturb in (
            failover.proxy.half_open,
            failover.proxy.swallow_answers,
            lambda: failover.proxy.delay(0.05),
            failover.proxy.cut,
        ):
            count = len(acknowledged)
            eventually(lambda: len(acknowledged) > count + 5, 30)  # noqa: B023 - called before the next round
            disturb()
            stop.wait(0.3)
            failover.proxy.restore()
    finally:
        stop.set()
        writer.join()
    assert set(acknowledged) <= {trade.trade_id for trade in failover.pool.get_all_trades()}


@pytest.mark.slow
def test_sentinel_promotes_a_replica_that_lacks_the_last_writes(server_binary, tmp_path):
    with (
        replica_pair(tmp_path) as (primary, replica),
        sentinel_of(primary, "the-pool", tmp_path / "sentinel") as port,
    ):
        settings = Settings(
            redis_url=f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/the-pool/0",
            redis_password=PASSWORD,
            redis_sentinel_password=SENTINEL_PASSWORD,
            data_dir=tmp_path / "pool",
            shard_count=4,
            socket_timeout_s=2,
        )
        with closing(JournalService(settings, connect(settings))) as journal:
            journal.recover()
            journal.start()
            with TradePool.connect(settings) as pool:
                first = pool.add_trade(buy(user_id="ann"))
                wait_holds(replica, pool, first.trade_id)
                detach(replica)
                second = pool.add_trade(buy(user_id="ann"))
                primary.kill()
                assert not holds(replica, pool, second.trade_id)
                wait_holds(replica, pool, second.trade_id)
                eventually(lambda: is_durable(pool), 30)
                assert pool.check_all_trades(deep=True).ok


def is_durable(pool: TradePool) -> bool:
    try:
        return pool.add_trade(buy(user_id="ann")).durable
    except Unavailable:
        return False
