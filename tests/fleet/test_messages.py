"""Messages as other programs, other releases and operators send them: each ends applied or parked."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from uuid import uuid4

import pytest

from tasks.doubled_ticks import tick_header
from tests.fleet.conftest import VISIBILITY_TIMEOUT_S, Fleet
from tests.fleet.trades import journaled_versions, new_trade, new_trades
from tests.waiting import eventually
from tradepool import PoolClient
from tradepool.store.tick_guard import Tick

CONFIRM_S = 30.0
ANSWER_S = 10.0
LARGE = 5000


def settled_down(fleet: Fleet) -> bool:
    lists = [key for key in fleet.pool.redis.keys("trades*") if fleet.pool.redis.type(key) == b"list"]
    return not lists and fleet.pool.redis.hlen("unacked") == 0


@pytest.mark.slow
def test_a_message_that_is_due_later_than_the_visibility_timeout_is_applied_once(fleet: Fleet):
    trade = new_trade()
    fleet.foreign.send_task(
        "tasks.trades.add_trade", args=[trade], queue="trades", countdown=VISIBILITY_TIMEOUT_S + 2
    )
    eventually(lambda: fleet.knows(trade["trade_id"]))
    eventually(lambda: settled_down(fleet))
    assert journaled_versions(fleet.settings)[trade["trade_id"], 1] == 1
    assert fleet.pool.get_trade(trade["trade_id"]).version == 1


def test_messages_of_every_priority_are_taken(fleet: Fleet):
    trades = new_trades(10)
    for priority, trade in enumerate(trades):
        fleet.foreign.send_task("tasks.trades.add_trade", args=[trade], queue="trades", priority=priority)
    eventually(lambda: all(fleet.knows(trade["trade_id"]) for trade in trades))
    eventually(lambda: settled_down(fleet))


def test_a_revoked_message_of_a_client_is_sent_again(fleet: Fleet):
    with PoolClient.connect(fleet.settings, resend_s=0.2) as client:
        revoked: list[str] = []
        told: list[dict[str, object]] = []
        sender = client._delivery._sender
        send = sender.send_each

        def send_and_revoke(queue: str, messages: list[list[bytes]]) -> list[str]:
            if revoked:
                return send(queue, messages)
            # The workers hear of it first, so it is dropped for certain.
            task_id = f"{uuid4()}"
            told.extend(fleet.foreign.control.revoke(task_id, reply=True, timeout=ANSWER_S, limit=2))
            revoked.append(task_id)
            commands = [json.loads(command) for command in messages[0]]
            return [sender.call(queue, "tasks.trades.apply_changes", [commands], task_id=task_id)]

        sender.send_each = send_and_revoke
        trade_ids = client.add_trades(new_trades(3))
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
    assert (len(told), len(revoked)) == (2, 1)


@pytest.mark.slow
def test_one_huge_message_is_applied_in_batches(fleet: Fleet):
    trades = new_trades(LARGE)
    trades[-1]["signals"] = {"note": "x" * 15_000}
    task_id = fleet.call("trades.add_trades", trades)
    eventually(lambda: fleet.knows(trades[-1]["trade_id"]), CONFIRM_S)
    assert all(fleet.knows(trade["trade_id"]) for trade in trades[:: LARGE // 50])
    assert fleet.letters(task_id) == []


OLDER = [
    # A task's first arguments, by position, without our header `sent_at`.
    {"task": "tasks.trades.close_trade", "args": ["{trade_id}", "110"]},
    # A chunk of a release that knew neither accounts nor reservations.
    {
        "task": "tasks.trades.apply_changes",
        "args": [
            [
                {
                    "op": "close_trade",
                    "command_id": "{trade_id}",
                    "as_of": 1,
                    "trade_id": "{trade_id}",
                    "price": "1",
                }
            ]
        ],
    },
    # A chunk of a later release, with a field that this one does not know.
    {
        "task": "tasks.trades.apply_changes",
        "args": [
            [{"op": "close_trade", "trade_id": "{trade_id}", "price": "1", "from_the_future": {"x": 1}}]
        ],
    },
]


@pytest.mark.parametrize("call", OLDER, ids=["no header", "older chunk", "later chunk"])
@pytest.mark.parametrize("protocol", [1, 2])
def test_messages_of_another_release_are_understood(fleet: Fleet, call: dict[str, object], protocol: int):
    trade = new_trade(status="filled")
    fleet.pool.add_trade(trade)
    text = json.dumps(call["args"]).replace("{trade_id}", str(trade["trade_id"]))
    put(fleet, str(call["task"]), json.loads(text), protocol)
    eventually(lambda: fleet.pool.get_trade(trade["trade_id"]).closed == Decimal(2))


def put(fleet: Fleet, task: str, args: list[object], protocol: int) -> None:
    """A message of Celery's first or second protocol, as a producer of any age writes it."""
    task_id = f"{uuid4()}"
    headers = {"id": task_id, "task": task, "lang": "py"} if protocol == 2 else {}
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    old = {"id": task_id, "task": task, "args": args, "kwargs": {}, "retries": 0, "eta": None}
    body = [args, {}, embedded] if protocol == 2 else old
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "trades", "routing_key": "trades"},
            "delivery_tag": task_id,
        },
    }
    fleet.pool.redis.lpush("trades", json.dumps(message))


def test_a_message_without_a_body_for_its_task_is_parked(fleet: Fleet):
    before = fleet.dead.count()
    put(fleet, "tasks.trades.of_another_release", [1], 2)
    eventually(lambda: fleet.dead.count() == before + 1)


def test_a_tick_that_two_beats_have_sent_takes_effect_once_and_its_own_message_may_come_again(fleet: Fleet):
    entry = f"entry-{uuid4()}"
    trade = new_trade()
    ticks = [Tick(entry=entry, due_ms=5, token=token, kept_ms=60_000) for token in ("a", "b", "a")]
    for tick in ticks:
        fleet.foreign.send_task(
            "tasks.tokens.expire_reservations", queue="tokens", task_id=entry, headers=tick_header(tick)
        )
    eventually(lambda: fleet.pool.redis.llen("tokens") == 0 and settled_down(fleet))
    fleet.call("trades.add_trade", trade)
    eventually(lambda: fleet.knows(trade["trade_id"]))
    lines = [line for node in fleet.nodes for line in node.logs().splitlines() if entry in line]
    ran = [line for line in lines if "succeeded" in line]
    assert len([line for line in lines if "doubled tick dropped" in line]) == 1
    assert len(ran) == 2, "the message that has the tick may come again"
