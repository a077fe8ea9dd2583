"""What `tradepool status` and `health` find wrong with a pool and its fleet, and what they say to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from pydantic import SecretStr

from tests.audit_plants import opened
from tests.loose_trades import buy
from tests.servers import Server
from tradepool import TradePool, wire
from tradepool.broker import ChangeSender
from tradepool.clock import now_us
from tradepool.fleet.health import read_health
from tradepool.fleet.metrics_server import metrics_text
from tradepool.fleet.problems import GPU_WAITING_MAX
from tradepool.fleet.state import Watcher
from tradepool.settings import Settings
from tradepool.store.fence import open_fence
from tradepool.store.keys import Keys
from tradepool.store.vitals import Vitals, worker_text

HOUR_US = 3_600_000_000
QUEUES = wire.QUEUES


@pytest.fixture
def pool(server: Server, tmp_path: Path) -> Iterator[TradePool]:
    with opened(server, tmp_path / "pool") as (made, _):
        for symbol in ("A/USDT", "B/USDT", "C/USDT", "D/USDT", "E/USDT"):
            made.add_trade(buy(symbol=symbol, status="filled"))
        yield made


@pytest.fixture
def watcher(pool: TradePool) -> Iterator[Watcher]:
    """Of a fleet whose workers and beat were heard of just now."""
    Vitals(pool.redis, pool.store.keys).beat(worker_text(QUEUES, "all@here"), now_us())
    pool.redis.zadd("redbeat::schedule", {"redbeat:mark-to-market": now_us() / 1_000_000 + 600})
    with Watcher(pool.settings) as looking:
        yield looking


@pytest.fixture
def problems(watcher: Watcher) -> Callable[[], list[str]]:
    return lambda: [problem.what for problem in read_health(watcher).problems]


def test_a_pool_without_a_fleet_is_not_missed_one(pool: TradePool):
    with Watcher(pool.settings, has_fleet=False) as watcher:
        health = read_health(watcher)
    assert (health.problems, health.queues, health.records) == ((), {}, 5)


def test_a_fenced_store_is_a_problem_until_it_is_open_again(settings: Settings, redis_client: redis.Redis):
    with Watcher(settings, has_fleet=False) as watcher:
        for _ in range(2):
            assert read_health(watcher).problems == ()
            redis_client.script_flush()
            (problem,) = read_health(watcher).problems
            assert problem.what == "the store takes no writes: it waits for recovery"
            assert read_health(watcher).is_fenced
            open_fence(redis_client)


def test_commits_that_wait_for_the_journal_are_a_problem_after_a_while(
    settings: Settings, redis_client: redis.Redis
):
    outboxes = [Keys(settings.shard_count).outbox(shard) for shard in (1, 3)]
    for outbox, seconds_ago in zip(outboxes, (60, 20), strict=True):
        redis_client.xadd(outbox, {"ta0": "x"}, id=f"{now_us() // 1000 - seconds_ago * 1000}-0")
        redis_client.xadd(outbox, {"ta0": "x"})
    with Watcher(settings, has_fleet=False) as watcher:
        health = read_health(watcher)
        assert health.problems[0].what.startswith("4 commits wait for the journal, the first for 6")
        assert (health.journal_lag, health.journal_lag_s >= 60) == (4, True)
        for outbox in outboxes:
            redis_client.xtrim(outbox, maxlen=1, approximate=False)
        assert read_health(watcher).problems == ()


def test_marks_that_are_old_or_lack_prices_are_problems_of_a_fleet(
    pool: TradePool, problems: Callable[[], list[str]]
):
    assert problems() == []
    prices = {f"{letter}/USDT": "1" for letter in "ABCDE"}
    pool.mark_to_market(prices)
    assert problems() == []
    pool.set_prices({"A/USDT": "1"}, at=(now_us() - HOUR_US) // 1_000_000)
    pool.mark_to_market()
    missing, stale = problems()
    assert missing == "open trades in B/USDT, C/USDT, D/USDT and 1 more have no price: they are in no figure"
    assert stale.startswith("open trades in A/USDT are marked at a price up to 3,60")
    with Watcher(pool.settings, has_fleet=False) as alone:
        assert read_health(alone).ok


def test_marks_without_a_tick_for_long_are_a_problem(pool: TradePool, watcher: Watcher):
    pool.mark_to_market({f"{letter}/USDT": "1" for letter in "ABCDE"}, at=(now_us() - HOUR_US) // 1_000_000)
    (problem,) = read_health(watcher).problems
    assert problem.what.startswith("the marks are 3,60")
    assert problem.what.endswith(" s old, and one is due every 1 s")
    assert "is beat running?" in problem.cure


def test_a_book_that_differs_from_the_store_is_a_problem(
    pool: TradePool, problems: Callable[[], list[str]], watcher: Watcher
):
    for part, different in enumerate((0, 3)):
        pool.store.write_book_check(part, 2, msgspec.json.encode({"different": different, "rows": 5}))
    assert read_health(watcher).book_differences == 3
    assert problems() == ["the book that is marked differs from the store in 3 trades"]


def test_a_gpu_queue_that_nobody_takes_ticks_from_is_a_problem(
    pool: TradePool, problems: Callable[[], list[str]]
):
    with ChangeSender(pool.settings) as sender:
        for _ in range(GPU_WAITING_MAX + 1):
            sender.call(wire.QUEUE_GPU, "tasks.pnl.mark_to_market", [])
    assert problems() == ["51 messages wait on the queue gpu: no worker takes them"]


def test_workers_that_are_missing_or_silent_are_problems(
    pool: TradePool, problems: Callable[[], list[str]], watcher: Watcher
):
    vitals = Vitals(pool.redis, pool.store.keys)
    vitals.beat(worker_text(["trades"], "trades-2@here"), now_us() - 60_000_000)
    assert problems() == ["the workers trades-2@here fell silent"]
    vitals.leave(worker_text(QUEUES, "all@here"))
    assert problems() == [f"no worker of the queue {queue} lives" for queue in QUEUES]
    assert {queue: found.workers for queue, found in read_health(watcher).queues.items()} == {
        **dict.fromkeys(QUEUES, 0),
        "dead": None,
    }


def test_a_worker_that_is_silent_for_an_hour_is_forgotten(pool: TradePool, problems: Callable[[], list[str]]):
    vitals = Vitals(pool.redis, pool.store.keys)
    vitals.beat(worker_text(["trades"], "trades-2@here"), now_us() - HOUR_US - 1_000_000)
    assert problems() == ["the workers trades-2@here fell silent"]
    vitals.beat(worker_text(QUEUES, "all@here"), now_us())
    assert problems() == []


def test_a_beat_that_is_late_or_was_never_there_is_a_problem(
    pool: TradePool, problems: Callable[[], list[str]]
):
    pool.redis.zadd("redbeat::schedule", {"redbeat:mark-to-market": now_us() / 1_000_000 - 100})
    assert problems() == ["beat is 100 s late with mark-to-market"]
    pool.redis.delete("redbeat::schedule")
    assert problems() == ["beat has no schedule on this broker"]


def test_a_full_disk_and_a_full_server_are_problems(
    pool: TradePool, problems: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    pool.redis.config_set("maxmemory", int(int(pool.redis.info("memory")["used_memory"]) / 0.9))
    try:
        store, broker = problems()
    finally:
        pool.redis.config_set("maxmemory", 0)
    assert store.startswith("the store uses ")
    assert broker.startswith("the broker uses ")
    full = os.statvfs_result((4096, 4096, 100, 9, 9, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert problems() == ["the disk of the data folder has 9% left: when it is full nothing is acknowledged"]


def test_a_disk_that_cannot_be_read_is_a_problem(
    pool: TradePool, problems: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    def broken(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "statvfs", broken)
    assert problems() == ["the data folder cannot be read: [Errno 5] Input/output error"]


def test_a_pool_that_never_had_a_snapshot_or_marks_is_as_old_as_it_is(
    pool: TradePool, problems: Callable[[], list[str]]
):
    assert problems() == []
    pool.redis.hset(pool.store.keys.meta, "created", now_us() - 2 * HOUR_US)
    found = problems()
    assert [problem.partition(" for ")[0] for problem in found] == [
        "there was no digest audit",
        "there was no snapshot",
        "no marks",
    ]
    assert found[2].endswith(" s, and one is due every 1 s")
    metrics = metrics_text(pool.settings)
    for name in ("snapshot", "marks"):
        assert re.search(rf"^tradepool_{name}_age_seconds 7[23]\d\d\.", metrics, re.MULTILINE)


def test_findings_stand_until_an_audit_as_deep_finds_nothing(
    pool: TradePool, problems: Callable[[], list[str]]
):
    shard = pool.store.keys.shard_of_user("ann")
    member = pool.store.keys.open_member("ann", "nobodys")
    pool.redis.zadd(pool.store.keys.open_trades(shard), {member: 0})
    assert not pool.check_all_trades(deep=True).ok
    assert pool.check_all_trades().ok
    (problem,) = problems()
    assert problem.startswith("the last deep audit found index_extra (1)")
    pool.redis.zrem(pool.store.keys.open_trades(shard), member)
    assert pool.check_all_trades(deep=True).ok
    assert problems() == []


def test_a_deeper_audit_has_the_last_word(pool: TradePool, problems: Callable[[], list[str]]):
    keys = pool.store.keys
    digest = keys.digest(keys.shard_of_user("ann"))
    sums = pool.redis.hgetall(digest)
    bucket = next(field for field in sums if field != b"position")
    pool.redis.hset(digest, bucket, "0" * 16 + ":1")
    assert not pool.check_all_trades().ok
    assert [problem.partition(" found ")[0] for problem in problems()] == ["the last digest audit"]
    pool.redis.hset(digest, mapping=sums)
    assert pool.check_all_trades(deep=True).ok
    assert problems() == []


def test_a_broker_that_is_away_is_a_problem_among_others(pool: TradePool):
    settings = pool.settings.model_copy(
        update={"broker_url": "redis://127.0.0.1:1/0", "connect_timeout_s": 0.1}
    )
    with Watcher(settings) as watcher:
        health = read_health(watcher)
    assert health.problems[0].what.startswith("the broker does not answer: ")
    assert health.problems[0].cure.startswith("start it")
    assert health.queues == {}


def test_a_broker_that_refuses_us_is_not_to_be_started(server: Server, settings: Settings, redis_client: Any):
    with server.client() as client:
        client.acl_setuser("nobody", enabled=True, passwords=["+right"], commands=["+@all"], keys=["*"])
        try:
            refused = settings.model_copy(
                update={
                    "broker_url": settings.redis_url,
                    "broker_username": "nobody",
                    "broker_password": SecretStr("wrong"),
                }
            )
            with Watcher(refused) as watcher:
                problem = read_health(watcher).problems[0]
        finally:
            client.acl_deluser("nobody")
    assert problem.what.startswith("the broker cannot be asked: ")
    assert problem.cure == "correct the setting that this names"
    assert "wrong" not in problem.what.replace("WRONGPASS", "")
