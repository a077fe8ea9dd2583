"""kill -9 under load: every trade that was enqueued is journaled, once."""

from __future__ import annotations

import signal

import psutil
import pytest

from tasks.pool_task import WORKERS_LOST_MAX
from tests.fleet.conftest import Fleet
from tests.fleet.nodes import WorkerNode
from tests.fleet.trades import journaled_versions, new_trade, new_trades
from tests.waiting import eventually
from tradepool.client import PoolClient

CONFIRM_S = 60.0
KILLS = 3
CALL_TRADES = 100


@pytest.fixture(scope="module")
def files_worker(bare_fleet: Fleet) -> WorkerNode:
    node = bare_fleet.start("files")
    node.wait_ready()
    return node


@pytest.fixture(scope="module")
def trades_worker(bare_fleet: Fleet, files_worker: WorkerNode) -> WorkerNode:
    node = bare_fleet.start("trades", threads=4)
    node.wait_ready()
    return node


def assert_journaled_once(fleet: Fleet, trade_ids: list[str]) -> None:
    versions = journaled_versions(fleet.settings)
    assert {trade_id: versions[trade_id, 1] for trade_id in trade_ids} == dict.fromkeys(trade_ids, 1)
    assert set(versions.values()) == {1}, "no version of a record is journaled twice"


def is_waiting_for_messages(fleet: Fleet, worker: WorkerNode) -> bool:
    """Whether the server holds a request of this worker that the next message will answer."""
    ports = {str(end.laddr.port) for end in psutil.Process(worker.process.pid).net_connections()}
    clients = fleet.pool.redis.client_list()
    return any("b" in one["flags"] and one["addr"].rpartition(":")[2] in ports for one in clients)


def test_a_message_that_dies_between_broker_and_worker_is_sent_again(
    bare_fleet: Fleet, files_worker: WorkerNode
):
    """Popped by a worker, not yet noted as unacknowledged: Celery alone would never know."""
    broker = bare_fleet.pool.redis
    eventually(lambda: broker.llen("trades") == 0 and broker.hlen("unacked") == 0)
    frozen = bare_fleet.start(
        "trades", "--without-mingle", app="tests.fleet.patient", broker_transport="celery"
    )
    frozen.wait_ready()
    eventually(lambda: is_waiting_for_messages(bare_fleet, frozen))
    frozen.process.kill(signal.SIGSTOP)
    with PoolClient.connect(bare_fleet.settings, resend_s=0.5) as client:
        trade_id = client.add_trade(new_trade())
        eventually(lambda: client.lag().unsent == 0)
        # The first copy was given to the frozen worker; others may wait behind it by now.
        assert not is_waiting_for_messages(bare_fleet, frozen)
        assert client.confirm([trade_id], 0) == {trade_id: False}
        frozen.process.kill(signal.SIGKILL)
        assert broker.hlen("unacked") == 0
        another = bare_fleet.start("trades")
        assert client.confirm([trade_id], CONFIRM_S) == {trade_id: True}
        another.teardown()
    assert_journaled_once(bare_fleet, [trade_id])


def test_a_trades_worker_that_is_killed_loses_and_doubles_nothing(
    bare_fleet: Fleet, trades_worker: WorkerNode
):
    with PoolClient.connect(bare_fleet.settings, batch_max=20, linger_ms=1, resend_s=2) as client:
        trade_ids: list[str] = []
        for round_number in range(20):
            trade_ids += client.add_trades(new_trades(CALL_TRADES))
            if round_number % (20 // KILLS) == 3:
                eventually(lambda: bare_fleet.pool.redis.hlen("unacked") > 0 or client.pending() == 0)
                trades_worker.kill(signal.SIGKILL)
                trades_worker.process.restart()
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
    assert_journaled_once(bare_fleet, trade_ids)


def test_a_files_worker_that_is_killed_loses_and_doubles_nothing(
    bare_fleet: Fleet, files_worker: WorkerNode, trades_worker: WorkerNode
):
    with PoolClient.connect(bare_fleet.settings, batch_max=20, linger_ms=1, resend_s=5) as client:
        trade_ids: list[str] = []
        for round_number in range(20):
            trade_ids += client.add_trades(new_trades(CALL_TRADES))
            if round_number % (20 // KILLS) == 3:
                files_worker.kill(signal.SIGKILL)
                files_worker.process.restart()
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
    assert_journaled_once(bare_fleet, trade_ids)


def test_a_worker_asked_to_end_finishes_and_leaves_nothing_behind(
    bare_fleet: Fleet, trades_worker: WorkerNode
):
    with PoolClient.connect(bare_fleet.settings, batch_max=20, linger_ms=1, resend_s=5) as client:
        trade_ids: list[str] = []
        for round_number in range(10):
            trade_ids += client.add_trades(new_trades(CALL_TRADES))
            if round_number == 4:
                trades_worker.kill(signal.SIGTERM)
                assert trades_worker.process.exit_code == 0
                trades_worker.process.restart()
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
    assert_journaled_once(bare_fleet, trade_ids)


@pytest.mark.slow
def test_what_a_killed_prefork_child_was_at_is_done_by_the_next_one_at_once(
    bare_fleet: Fleet, files_worker: WorkerNode
):
    """Not after Celery's three minutes, and not only because the client sends it again."""
    for node in bare_fleet.nodes:
        if node is not files_worker:
            node.teardown()
    worker = bare_fleet.start("trades", "-P", "prefork", "-c", "1")
    worker.wait_ready()
    files_worker.kill(signal.SIGSTOP)
    with PoolClient.connect(bare_fleet.settings, resend_s=1000) as client:
        trade_id = client.add_trade(new_trade())
        eventually(lambda: bare_fleet.pool.store.outbox_lengths() != [0] * bare_fleet.settings.shard_count)
        (child,) = psutil.Process(worker.process.pid).children()
        child.kill()
        worker.wait_for_log("Worker exited prematurely")
        files_worker.kill(signal.SIGCONT)
        assert client.confirm([trade_id], CONFIRM_S) == {trade_id: True}
        eventually(lambda: bare_fleet.pool.redis.hlen("unacked") == 0)
    worker.teardown()
    assert_journaled_once(bare_fleet, [trade_id])


@pytest.mark.slow
def test_a_message_over_which_one_child_after_the_other_dies_is_parked(
    bare_fleet: Fleet, files_worker: WorkerNode
):
    worker = bare_fleet.start("trades", "-P", "prefork", "-c", "1")
    worker.wait_ready()
    lost = bare_fleet.foreign.send_task(
        "tasks.trades.add_trade", args=[new_trade()], queue="trades", retries=WORKERS_LOST_MAX + 1
    )
    eventually(lambda: bare_fleet.letters(lost.id))
    (letter,) = bare_fleet.letters(lost.id)
    assert "died over it" in letter.reason["problem"]
    worker.teardown()
