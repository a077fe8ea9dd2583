"""Workers with atomic takes: killed before they hear of a message, asked to revoke, mixed, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from redis.exceptions import AuthenticationError, ResponseError

from tests.fleet.atomic_consumer import TurnedConsumer
from tests.fleet.conftest import Fleet, running_fleet
from tests.fleet.nodes import start_worker
from tests.fleet.trades import journaled_versions, new_trade, new_trades
from tests.tcp_proxy import TcpProxy
from tests.waiting import eventually
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings

pytestmark = pytest.mark.slow

LOAD = 20
WAIT_S = 90.0
DELAY_S = 1.0


@pytest.fixture(scope="module")
def atomic_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server, and a files worker that takes atomically."""
    with running_fleet(tmp_path_factory.mktemp("pool")) as fleet:
        fleet.settings = taking(fleet.settings, "atomic")
        fleet.start("files").wait_ready()
        yield fleet


def taking(settings: Settings, transport: Literal["celery", "atomic"]) -> Settings:
    return settings.model_copy(update={"broker_transport": transport})


def journaled(fleet: Fleet, trades: list[dict[str, object]]) -> int:
    versions = journaled_versions(fleet.settings)
    return sum(versions[str(trade["trade_id"]), 1] for trade in trades)


def is_idle(fleet: Fleet) -> bool:
    """Whether nothing waits and nothing is under way."""
    broker = fleet.pool.redis
    return not (broker.llen("trades") or broker.hlen("unacked") or broker.zcard("unacked_index"))


@pytest.mark.parametrize(("transport", "lost"), [("celery", 1), ("atomic", 0)])
def test_a_worker_killed_under_load_before_it_hears_of_a_message(
    tmp_path: Path, transport: Literal["celery", "atomic"], lost: int
):
    """Given away by the server, not heard of by the worker: kill -9 finds it there."""
    with running_fleet(tmp_path) as fleet:
        address = urlsplit(fleet.settings.redis_url)
        fleet.start("files").wait_ready()
        with TcpProxy(("127.0.0.1", address.port)) as proxy:
            proxied = fleet.settings.redis_url.replace(f":{address.port}", f":{proxy.port}")
            settings = taking(fleet.settings, transport).model_copy(update={"broker_url": proxied})
            doomed = start_worker(settings, "trades")
            try:
                doomed.wait_ready()
                eventually(lambda: is_idle(fleet))
                # What the server says is under way that long, so that the kill comes before it.
                proxy.delay(DELAY_S)
                trades = new_trades(LOAD)
                for trade in trades:
                    fleet.call("trades.add_trade", trade)
                eventually(lambda: fleet.pool.redis.llen("trades") < LOAD, WAIT_S)
            finally:
                doomed.teardown()
        fleet.start("trades").wait_ready()
        eventually(lambda: is_idle(fleet), WAIT_S)
        assert journaled(fleet, trades) == LOAD - lost


@pytest.mark.parametrize("pool", ["threads", "prefork", "solo"])
def test_a_worker_of_every_kind_answers_revokes_and_leaves_nothing_behind(atomic_fleet: Fleet, pool: str):
    fleet = atomic_fleet
    worker = fleet.start("trades", "-P", pool)
    worker.wait_ready()
    inspect = fleet.foreign.control.inspect(timeout=5)
    eventually(lambda: len(inspect.ping() or {}) == 2)
    queues = {queue["name"] for named in inspect.active_queues().values() for queue in named}
    assert queues == {"trades", "files"}

    refused, done = new_trade(), new_trades(30)
    fleet.foreign.control.revoke(f"revoked-{pool}")
    eventually(
        lambda: any(f"revoked-{pool}" in revoked for revoked in (inspect.revoked() or {"": []}).values())
    )
    fleet.foreign.send_task(
        "tasks.trades.add_trade", args=[refused], queue="trades", task_id=f"revoked-{pool}"
    )
    for trade in done:
        fleet.call("trades.add_trade", trade)
    eventually(lambda: journaled(fleet, done) == len(done) and is_idle(fleet), WAIT_S)
    assert journaled(fleet, [refused]) == 0
    worker.kill("SIGTERM")
    assert worker.process.exit_code == 0
    assert is_idle(fleet)


def test_workers_of_both_kinds_share_a_queue_and_one_takes_over_from_the_other(atomic_fleet: Fleet):
    fleet = atomic_fleet
    trades = new_trades(200)
    kinds: tuple[Literal["celery", "atomic"], ...] = ("celery", "atomic")
    workers = {kind: start_worker(taking(fleet.settings, kind), "trades") for kind in kinds}
    try:
        for worker in workers.values():
            worker.wait_ready()
        for trade in trades[:100]:
            fleet.call("trades.add_trade", trade)
        eventually(lambda: fleet.pool.redis.hlen("unacked") > 0 or is_idle(fleet))
        # What it had taken is put back by the other kind.
        workers["atomic"].kill("SIGKILL")
        for trade in trades[100:]:
            fleet.call("trades.add_trade", trade)
        eventually(lambda: journaled(fleet, trades) == len(trades) and is_idle(fleet), WAIT_S)
    finally:
        for worker in workers.values():
            worker.teardown()


def test_a_broker_that_does_not_know_hello_is_refused_with_the_cure(tmp_path: Path):
    cure = r"protocol 3.*TRADEPOOL_BROKER_TRANSPORT=celery"
    with EmbeddedServer(tmp_path, port=0, overrides=['rename-command HELLO ""']) as server:
        password = f":{urlsplit(server.url).password}@"
        # It answers as if the password were wrong; one that is wrong is told as it is.
        with pytest.raises(ResponseError, match=cure):
            TurnedConsumer(server.url)
        with pytest.raises(AuthenticationError):
            TurnedConsumer(server.url.replace(password, ":wrong@"))
        with server.client() as client:
            client.config_set("requirepass", "")
        with pytest.raises(ResponseError, match=cure):
            TurnedConsumer(server.url.replace(password, ""))
