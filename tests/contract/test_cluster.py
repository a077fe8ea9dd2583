"""A pool on a Redis Cluster of three real nodes, one of which crashes and forgets its last writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.loose_trades import buy, entry
from tests.servers import ClusterServers, Server, cluster_node, cluster_servers, meet
from tests.waiting import eventually
from tradepool import TradePool
from tradepool.client.confirmation import Confirmation
from tradepool.errors import (
    Corrupt,
    Fenced,
    IdempotencyConflict,
    JournalAhead,
    JournalUnavailable,
    Misconfigured,
    StoreUnavailable,
    Unavailable,
)
from tradepool.journaling import recovery
from tradepool.journaling.service import JournalService
from tradepool.settings import Settings
from tradepool.store import fence
from tradepool.store.connection import Client, connect
from tradepool.store.plan import CHANGES_MAX

USERS = [f"user-{n}" for n in range(24)]
SHARD_COUNT = 16


@pytest.fixture(scope="module")
def cluster(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """One cluster for the tests here, which leave it whole."""
    with cluster_servers(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def settings(cluster: ClusterServers, tmp_path: Path) -> Settings:
    """A pool of its own on the emptied cluster."""
    cluster.empty()
    return Settings(
        redis_url=cluster.url,
        data_dir=tmp_path / "pool",
        shard_count=SHARD_COUNT,
        journal_wait_s=20,
        socket_timeout_s=5,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of the whole cluster."""
    with connect(settings) as opened:
        yield opened


@pytest.fixture
def journal(settings: Settings, client: Client) -> Iterator[JournalService]:
    """The pool's journal, at work."""
    with closing(JournalService(settings, client)) as service:
        service.recover()
        service.start()
        yield service


@pytest.fixture
def pool(settings: Settings, journal: JournalService) -> Iterator[TradePool]:
    """A pool whose users live on all three nodes."""
    with TradePool.connect(settings) as opened:
        yield opened


def node_of_user(pool: TradePool, cluster: ClusterServers, user_id: str) -> Server:
    keys = pool.store.keys
    return cluster.node_of(keys.outbox(keys.shard_of_user(user_id)))


def victim(pool: TradePool, cluster: ClusterServers) -> tuple[Server, str]:
    """A node that has users, and one of them."""
    user_id = USERS[0]
    return node_of_user(pool, cluster, user_id), user_id


def test_a_pool_works_on_all_nodes(pool, cluster):
    receipts = pool.add_trades([buy(user_id=user_id, amount="2", price="100") for user_id in USERS])
    assert len({id(node_of_user(pool, cluster, user_id)) for user_id in USERS}) == len(cluster.nodes)
    for receipt in receipts:
        pool.add_fill(receipt.trade_id, entry("f1", amount="2", price="100"))
    pool.close_trade(receipts[0].trade_id, "110")
    foreign = pool.add_trade(buy(user_id="user-1", trade_id="trade:1"))
    pool.update_available_tokens("user-1", {"USDT": "5"})
    pool.set_prices({"BTC/USDT": "120"})
    pool.mark_to_market()

    assert all(receipt.durable for receipt in receipts)
    assert pool.get_trade(foreign.trade_id).user_id == "user-1"
    assert pool.get_trade(receipts[0].trade_id).status == "completed"
    assert len(list(pool.get_all_trades())) == len(USERS) + 1
    assert pool.add_trade(buy(user_id="user-1", trade_id="trade:1")).outcome == "duplicate"
    assert pool.check_all_trades(deep=True).ok
    confirmed = Confirmation(pool.redis, pool.store).is_journaled([foreign.trade_id, "trade:none"])
    assert confirmed == {foreign.trade_id: True, "trade:none": False}


@pytest.mark.slow
def test_a_snapshot_and_the_journal_refill_an_emptied_cluster(pool, journal, client, cluster, settings):
    pool.add_trades([buy(user_id=user_id) for user_id in USERS])
    pool.write_snapshot(journal.journal)
    later = pool.add_trade(buy(user_id=USERS[0]))
    journal.close()
    cluster.empty()
    with closing(JournalService(settings, client)) as again:
        again.recover()
        again.start()
        assert pool.get_trade(later.trade_id).version == 1
        assert len(list(pool.get_all_trades())) == len(USERS) + 1
        # It waits for the journal, which tells how far it is once it is at work.
        assert pool.check_all_trades(deep=True).ok


def test_a_node_that_crashed_and_lost_its_tail_is_fenced_and_gets_it_back(pool, journal, client, cluster):
    node, user_id = victim(pool, cluster)
    before = pool.add_trades([buy(user_id=name) for name in USERS])
    kept = node.aof_bytes()
    lost = pool.add_trades([buy(user_id=name) for name in USERS])
    set_back(cluster, node, kept)

    eventually(lambda: fence.is_open(client))
    trades = {trade.trade_id for trade in pool.get_all_trades()}
    assert trades == {receipt.trade_id for receipt in (*before, *lost)}
    assert pool.check_all_trades(deep=True).ok
    assert pool.add_trade(buy(user_id=user_id)).durable


def test_a_node_that_crashes_while_another_is_recovered_is_recovered_as_well(
    pool, journal, client, cluster, settings, monkeypatch
):
    """Its shards were not behind when recovery looked at them."""
    first, second = cluster.nodes[:2]
    before = pool.add_trades([buy(user_id=name) for name in USERS])
    kept = {node: node.aof_bytes() for node in (first, second)}
    lost = pool.add_trades([buy(user_id=name) for name in USERS])
    journal.close()
    set_back(cluster, first, kept[first])
    real, crashes = recovery._check_nothing_lost, [second]

    def check_then_crash(*arguments: object) -> None:
        real(*arguments)
        if crashes:
            set_back(cluster, node := crashes.pop(), kept[node])

    monkeypatch.setattr(recovery, "_check_nothing_lost", check_then_crash)
    with closing(JournalService(settings, client)) as again:
        with pytest.raises(StoreUnavailable):
            again.recover()
        again.recover()
    trades = {trade.trade_id for trade in pool.get_all_trades()}
    assert trades == {receipt.trade_id for receipt in (*before, *lost)}


@pytest.mark.slow
def test_one_restarted_node_closes_the_fence_for_all(pool, journal, client, cluster, settings):
    journal.close()
    heart = cluster.node_of(pool.store.keys.meta)
    user_id = next(name for name in USERS if node_of_user(pool, cluster, name) is not heart)
    node = node_of_user(pool, cluster, user_id)
    node.kill()
    node.start()
    cluster.wait_whole()
    eventually(lambda: is_answered(client))

    assert not fence.is_open(client)
    with pytest.raises(Fenced):
        pool.store.generation()
    with pytest.raises((Fenced, StoreUnavailable)):
        pool.add_trade(buy(user_id=user_id))
    with closing(JournalService(settings, client)) as again:
        again.recover()
    assert fence.is_open(client)


@pytest.mark.slow
def test_writers_go_on_while_a_node_dies_and_nothing_acknowledged_is_missing(pool, cluster, settings):
    node, _ = victim(pool, cluster)
    kept = node.aof_bytes()
    stop = threading.Event()
    acknowledged: list[list[str]] = [[] for _ in range(3)]

    def write(mine: list[str], number: int) -> None:
        with TradePool.connect(settings) as writer:
            while not stop.is_set():
                try:
                    added = writer.add_trades([buy(user_id=USERS[(number * 7 + i) % 24]) for i in range(8)])
                    mine.extend(receipt.trade_id for receipt in added)
                except Unavailable:
                    stop.wait(0.05)

    threads = [threading.Thread(target=write, args=[mine, n]) for n, mine in enumerate(acknowledged)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(len(mine) > 40 for mine in acknowledged))
        node.kill()
        node.set_back(kept)
        counts = [len(mine) for mine in acknowledged]
        node.start()
        cluster.wait_whole()
        eventually(lambda: all(len(m) > n + 40 for m, n in zip(acknowledged, counts, strict=True)), 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    eventually(lambda: fence.is_open(pool.redis))
    there = {trade.trade_id for trade in pool.get_all_trades()}
    assert not {trade_id for mine in acknowledged for trade_id in mine} - there
    assert pool.check_all_trades(deep=True).ok


@pytest.mark.slow
def test_routes_that_a_node_has_lost_lead_to_trades_on_the_others_again(pool, journal, client, cluster):
    """The trades' own shards lack nothing."""
    ids = {f"freq-{number}": user_id for number, user_id in enumerate(USERS)}
    pool.add_trades([buy(user_id=user_id, trade_id=trade_id) for trade_id, user_id in ids.items()])
    keys = pool.store.keys
    for node in cluster.nodes:
        with node.client() as direct:
            direct.flushall()
            direct.script_flush()
        eventually(lambda: opened(client))
        assert {trade_id: pool.get_trade(trade_id).user_id for trade_id in ids} == ids
    trade_id, user_id = next(iter(ids.items()))
    stranger = next(name for name in USERS if keys.shard_of_user(name) != keys.shard_of_user(user_id))
    with pytest.raises(IdempotencyConflict):
        pool.add_trade(buy(user_id=stranger, trade_id=trade_id))


@pytest.mark.slow
def test_a_shard_of_more_records_than_a_plan_takes_is_filled_again(pool, journal, client, cluster):
    count = CHANGES_MAX + 100
    pool.add_trades([buy(user_id=USERS[0]) for _ in range(count)])
    with node_of_user(pool, cluster, USERS[0]).client() as direct:
        direct.flushall()
        direct.script_flush()
    eventually(lambda: opened(client), 30)
    assert len(list(pool.get_all_trades())) == count


@pytest.mark.slow
def test_a_node_that_came_back_empty_is_filled_again_also_the_one_with_the_pools_own_keys(
    pool, client, cluster
):
    receipts = pool.add_trades([buy(user_id=user_id) for user_id in USERS])
    for node in {cluster.node_of(pool.store.keys.meta), victim(pool, cluster)[0]}:
        with node.client() as direct:
            direct.flushall()
            direct.script_flush()
        eventually(lambda: opened(client))
        trades = {trade.trade_id for trade in pool.get_all_trades()}
        assert trades == {receipt.trade_id for receipt in receipts}
        assert pool.check_all_trades(deep=True).ok


def test_an_answer_that_was_left_on_an_emptied_node_does_not_keep_recovery_out(
    pool, journal, client, cluster, settings
):
    """A worker leaves a refusal while the server waits for its recovery."""
    pool.add_trades([buy(user_id=user_id) for user_id in USERS])
    journal.close()
    with cluster.node_of(pool.store.keys.meta).client() as direct:
        direct.flushall()
        direct.script_flush()
    pool.store.put_answers({"a" * 16: "stale"})
    with closing(JournalService(settings, client)) as again:
        again.recover()
    assert fence.is_open(client)
    assert len(list(pool.get_all_trades())) == len(USERS)


@pytest.mark.slow
def test_shards_of_another_pool_are_not_taken_over(pool, journal, client, cluster, settings, tmp_path):
    pool.add_trades([buy(user_id=user_id) for user_id in USERS])
    journal.close()
    cluster.empty()
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    with closing(JournalService(other, client)) as stranger:
        stranger.recover()
        stranger.start()
        pool.add_trades([buy(user_id=user_id) for user_id in USERS])
    client.delete(pool.store.keys.meta)
    with closing(JournalService(settings, client)) as again, pytest.raises(JournalAhead):
        again.recover()
    assert not fence.is_open(client)


@pytest.mark.slow
def test_a_shard_that_holds_something_else_is_no_shard_of_this_pool(pool, journal, client, settings):
    pool.add_trades([buy(user_id=user_id) for user_id in USERS])
    journal.close()
    keys = pool.store.keys
    client.hset(keys.digest(keys.shard_of_user(USERS[0])), "0", f"{7:016x}:1")
    client.delete(keys.meta)
    with closing(JournalService(settings, client)) as again, pytest.raises(Corrupt, match="the journal"):
        again.recover()
    assert not fence.is_open(client)


def test_a_single_server_is_not_taken_for_a_cluster(tmp_path, server_binary):
    with Server(tmp_path) as single, pytest.raises(Misconfigured, match="no node of a cluster"):
        connect(Settings(redis_url=single.url.replace("redis://", "redis+cluster://").removesuffix("/0")))


@pytest.mark.slow
def test_a_cluster_whose_nodes_are_all_away_is_unavailable():
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        connect(Settings(redis_url="redis+cluster://127.0.0.1:1,127.0.0.1:2", connect_timeout_s=1))


@pytest.mark.slow
def test_slots_that_move_are_followed(pool, cluster):
    """It changes which node has what, so the tests that ask for that come before."""
    keys = pool.store.keys
    first = pool.add_trade(buy(user_id=USERS[0]))
    for key in (keys.meta, keys.outbox(keys.shard_of_user(USERS[0]))):
        home = cluster.node_of(key)
        cluster.move(key, next(node for node in cluster.nodes if node is not home))
        eventually(lambda: is_durable(pool))
    assert pool.get_trade(first.trade_id).version == 1
    assert pool.check_all_trades(deep=True).ok


@pytest.mark.slow
def test_a_promoted_replica_that_lacks_the_tail_is_fenced_and_gets_it_back(pool, client, cluster, tmp_path):
    """Last of all: it changes who is the primary of the first node's slots."""
    node, user_id = victim(pool, cluster)
    with cluster_node(tmp_path / "replica") as replica:
        meet(node, replica)
        with node.client() as old, replica.client() as new:
            primary_id = bytes(old.execute_command("CLUSTER", "MYID")).decode()
            eventually(lambda: knows(new, primary_id))
            new.execute_command("CLUSTER", "REPLICATE", primary_id)
            eventually(lambda: new.info("replication").get("master_link_status") == "up")
            first = pool.add_trade(buy(user_id=user_id))
            eventually(lambda: in_step(old, new))
            replica.pause()
            second = pool.add_trade(buy(user_id=user_id))
            node.kill()
            replica.resume()
            new.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        eventually(lambda: opened(client), 60)
        assert pool.get_trade(first.trade_id).version == 1
        assert pool.get_trade(second.trade_id).version == 1
        assert pool.check_all_trades(deep=True).ok


def set_back(cluster: ClusterServers, node: Server, aof_bytes: int) -> None:
    """The node crashes, loses the end of its append-only file, and is back."""
    node.kill()
    node.set_back(aof_bytes)
    node.start()
    cluster.wait_whole()


def is_durable(pool: TradePool) -> bool:
    try:
        return pool.add_trade(buy(user_id=USERS[0])).durable
    except Unavailable:
        return False


def is_answered(client: Client) -> bool:
    try:
        client.script_exists("0" * 40)
    except Exception:  # noqa: BLE001 - redis-py's errors for nodes that come and go are many
        return False
    return True


def opened(client: Client) -> bool:
    try:
        return fence.is_open(client)
    except (StoreUnavailable, JournalUnavailable):
        return False


def knows(client: object, node_id: str) -> bool:
    return node_id in bytes(client.execute_command("CLUSTER", "NODES")).decode()


def in_step(primary: object, replica: object) -> bool:
    return (
        primary.info("replication")["master_repl_offset"] == replica.info("replication")["master_repl_offset"]
    )
