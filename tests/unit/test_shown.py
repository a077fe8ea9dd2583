"""What is told of a task's arguments: ids and counts, whoever has sent them and in whatever shape."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import structlog
from celery import signals
from kombu.message import Message

from tasks.app import app
from tasks.shown import QuietRequest, about

SECRET = "S3CRET-STRATEGY"
TRADE = {"trade_id": "t-1", "user_id": "ann", "symbol": "BTC/USDT", "extra": SECRET}
CASES = [
    (
        "tasks.trades.close_trade",
        ["t-1", SECRET],
        {"command_id": "c-1"},
        {"trade_id": "t-1", "command_id": "c-1"},
    ),
    ("tasks.trades.add_trade", [TRADE], {}, {"trade_id": "t-1", "user_id": "ann"}),
    ("tasks.trades.add_trades", [[TRADE, TRADE]], {}, {"commands": 2}),
    (
        "tasks.trades.apply_changes",
        [[{"op": "add_trade", "command_id": "c-1", "trade": TRADE}]],
        {},
        {"commands": 1, "command_id": "c-1", "trade_id": "t-1", "user_id": "ann"},
    ),
    ("tasks.trades.update_trade", [], {"trade_id": "t-1", "changes": {"notes": SECRET}}, {"trade_id": "t-1"}),
    ("tasks.trades.close_trade", [{"x": SECRET}, 7, SECRET], {}, {}),
    ("tasks.trades.close_trade", SECRET, None, {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "told"), CASES)
def test_ids_and_counts_are_told_and_no_payload(name, args, kwargs, told):
    app.loader.import_default_modules()
    assert about(app.tasks[name], args, kwargs) == told


@pytest.mark.parametrize(("name", "args", "kwargs", "told"), CASES)
def test_a_worker_shows_them_in_place_of_the_arguments_that_the_message_tells(name, args, kwargs, told):
    app.loader.import_default_modules()
    headers = {"id": "task-1", "task": name, "argsrepr": repr(args), "kwargsrepr": repr(kwargs)}
    message = Message(headers=headers, delivery_info={}, properties={}, body="")
    request = QuietRequest(
        message, app=app, task=app.tasks[name], headers=headers, body=(args, kwargs, {}), decoded=True
    )
    for shown in (
        request.argsrepr,
        request.kwargsrepr,
        repr(request),
        str(request.info()),
        str(request.info(safe=True)),
    ):
        assert SECRET not in shown
    assert all(f"{key}={value}" in request.argsrepr for key, value in told.items())
    assert app.tasks[name].Request == "tasks.shown:QuietRequest"


def test_events_tell_the_kind_of_a_failure_and_nothing_of_an_answer():
    told: dict[str, object] = {}
    eventer = SimpleNamespace(enabled=True, send=lambda _type, **fields: told.update(fields))
    request = QuietRequest.__new__(QuietRequest)
    request._eventer, request._task = eventer, SimpleNamespace(send_events=True)
    request.id = "task-1"
    request.send_event("task-succeeded", result=SECRET, runtime=1.5)
    request.send_event("task-failed", exception=f"InvalidTrade('{SECRET}')", traceback=SECRET)
    assert told == {"uuid": "task-1", "runtime": 1.5, "exception": "InvalidTrade"}


def test_lines_within_a_task_are_bound_to_it_and_later_ones_are_not():
    app.loader.import_default_modules()
    task = app.tasks["tasks.trades.close_trade"]
    signals.task_prerun.send(sender=task, task=task, task_id="task-1", args=["t-1", "1"], kwargs={})
    bound = structlog.contextvars.get_contextvars()
    signals.task_postrun.send(sender=task, task=task, task_id="task-1", args=["t-1", "1"], kwargs={})
    assert bound == {"task": task.name, "task_id": "task-1", "trade_id": "t-1"}
    assert structlog.contextvars.get_contextvars() == {}
