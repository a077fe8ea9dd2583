"""Where tasks travel: explicit queues, one word for queue, exchange and routing key."""

from __future__ import annotations

from datetime import timedelta

import pytest

from beat_schedule import beat_schedule
from tasks import app
from tasks.routing import DEAD_QUEUE, task_queues
from tradepool import wire
from tradepool.broker import queue_named
from tradepool.settings import Settings

QUEUES_OF_TASKS = {
    "tasks.trades.add_trade": "trades",
    "tasks.trades.apply_changes": "trades",
    "tasks.tokens.update_available_tokens": "tokens",
    "tasks.tokens.expire_reservations": "tokens",
    "tasks.audit.check_all_trades": "audit",
    "tasks.audit.check_part": "audit",
    "tasks.pnl.mark_to_market": "gpu",
    "tasks.pnl.stress_test": "gpu",
    "tasks.pnl.check_book": "gpu",
    "tasks.files.write_snapshot": "files",
    "tasks.files.archive_closed_trades": "files",
}
PINNED_TASKS = {
    "tasks.trades": {
        "add_trade",
        "add_trades",
        "add_fill",
        "update_trade",
        "update_trade_pnl",
        "close_trade",
        "apply_changes",
    },
    "tasks.tokens": {
        "update_available_tokens",
        "reserve_tokens",
        "settle_tokens",
        "release_tokens",
        "expire_reservations",
    },
    "tasks.pnl": {"mark_to_market", "stress_test", "check_book"},
    "tasks.audit": {"check_all_trades", "check_part", "check_trades"},
    "tasks.files": {"write_snapshot", "archive_closed_trades"},
}


@pytest.mark.parametrize(("task", "queue"), QUEUES_OF_TASKS.items())
def test_a_task_goes_to_its_queue_by_an_explicit_exchange_and_key(task: str, queue: str):
    route = app.amqp.router.route({}, task)
    chosen = route["queue"]
    assert (chosen.name, chosen.exchange.name, chosen.routing_key) == (queue, queue, queue)
    assert chosen.exchange.type == "direct"


def test_a_caller_may_name_another_queue():
    route = app.amqp.router.route({"queue": "audit"}, "tasks.pnl.mark_to_market")
    assert (route["queue"].name, route.get("exchange"), route.get("routing_key")) == ("audit", None, None)


def test_each_device_has_a_queue():
    names = [queue.name for queue in task_queues(3)]
    assert names == ["trades", "tokens", "audit", "gpu", "files", "gpu.1", "gpu.2"]


def test_the_pinned_tasks_exist():
    app.loader.import_default_modules()
    for module, names in PINNED_TASKS.items():
        assert {f"{module}.{name}" for name in names} <= set(app.tasks)


def test_beat_knows_only_tasks_that_exist():
    app.loader.import_default_modules()
    entries = beat_schedule(Settings(expire_every_s=3))
    assert {entry["task"] for entry in entries.values()} <= set(app.tasks)
    assert entries["expire-reservations"]["schedule"] == timedelta(seconds=3)
    assert entries["expire-reservations"]["options"]["expires"] < 3


def test_a_worker_without_a_queue_list_does_not_consume_the_dead_letters():
    consumed = {queue.name for queue in app.conf.task_queues}
    assert consumed == set(wire.QUEUES)
    assert DEAD_QUEUE.name not in consumed


def test_the_client_and_the_fleet_mean_the_same_queue():
    assert queue_named("trades") in app.conf.task_queues


def test_a_misspelt_queue_fails_at_the_caller():
    with pytest.raises(Exception, match="task_queues"):
        app.amqp.router.route({"queue": "trdaes"}, "tasks.trades.add_trade")
