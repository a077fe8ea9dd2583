"""What was parked and is sent again takes effect once, in its order, as of its own time."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from uuid import uuid4

from tests.fleet.conftest import Fleet
from tests.fleet.trades import journaled_versions, new_trade
from tests.waiting import eventually
from tradepool import reservation_id, wire
from tradepool.clock import now_us
from tradepool.fleet.dead_letters import Wanted

CHUNK = wire.APPLY_CHANGES


def park_call(fleet: Fleet, task: str, task_id: str, args: list[object], sent_at: int, why: str = "") -> None:
    """What a worker leaves of a call that failed as a whole."""
    park(fleet, task, task_id, {"args": args, "kwargs": {}}, sent_at, why)


def park(
    fleet: Fleet, task: str, task_id: str, payload: dict[str, object], sent_at: int, why: str = ""
) -> None:
    letter = {
        "reason": {"error": "ZeroDivisionError", "problem": f"a bug that is mended now, {why}"},
        "task": task,
        "task_id": task_id,
        "payload": payload,
        "sent_at": sent_at,
        "parked_at": now_us(),
    }
    body = base64.b64encode(json.dumps(letter).encode()).decode()
    fleet.pool.redis.lpush(wire.QUEUE_DEAD, json.dumps({"body": body}))


def replay(fleet: Fleet, task_id: str) -> None:
    assert fleet.dead.replay(Wanted(name=task_id)) == (1, 0)


def settled_down(fleet: Fleet) -> None:
    for queue in ("trades", "tokens"):
        eventually(lambda queue=queue: fleet.pool.redis.llen(queue) == 0)
    eventually(lambda: fleet.pool.redis.hlen("unacked") == 0)


def test_a_call_that_was_applied_and_parked_all_the_same_adds_nothing_twice(fleet: Fleet):
    user_id, task_id, sent_at = f"twice-{uuid4()}", f"{uuid4()}", now_us()
    trades = [new_trade(user_id=user_id) for _ in range(3)]
    for trade in trades:
        del trade["trade_id"]
    fleet.sender.call("trades", "tasks.trades.add_trades", [trades], task_id=task_id, sent_at=sent_at)
    eventually(lambda: len(fleet.pool.get_trades_by_user(user_id).trades) == 3)
    for _ in range(2):
        park_call(fleet, "tasks.trades.add_trades", task_id, [trades], sent_at)
        replay(fleet, task_id)
    settled_down(fleet)
    assert len(fleet.pool.get_trades_by_user(user_id).trades) == 3
    assert fleet.letters(task_id) == []


def test_what_comes_late_from_among_the_parked_undoes_no_later_change(fleet: Fleet):
    trade, task_id, sent_at = new_trade(), f"{uuid4()}", now_us()
    fleet.pool.add_trade(trade)
    fleet.pool.update_trade(trade["trade_id"], stop_loss="90")
    change = {"op": "update_trade", "trade_id": trade["trade_id"], "changes": {"stop_loss": "10"}}
    park_call(fleet, CHUNK, task_id, [[change]], sent_at)
    replay(fleet, task_id)
    settled_down(fleet)
    assert fleet.pool.get_trade(trade["trade_id"]).stop_loss == 90


def test_parked_commands_of_a_trade_and_an_account_are_applied_in_their_order(fleet: Fleet):
    user_id = f"holder-{uuid4()}"
    trade = new_trade(user_id=user_id, market="spot")
    trade_id, held = trade["trade_id"], reservation_id(user_id, "default", "k")
    fill = {"fill_id": f"{trade_id}-e", "role": "entry", "amount": "2", "price": "100"}
    of_trade = [
        {"op": "add_trade", "trade": {**trade, "status": "submitted"}},
        {"op": "add_fill", "trade_id": trade_id, "fill": fill},
        {"op": "close_trade", "trade_id": trade_id, "price": "110"},
    ]
    of_account = [
        {
            "op": "reserve_tokens",
            "user_id": user_id,
            "asset": "USDT",
            "amount": "60",
            "key": "k",
            "ttl_s": 600,
        },
        {"op": "settle_tokens", "reservation_id": held, "spent": "50"},
    ]
    fleet.pool.update_available_tokens(user_id, {"USDT": 100})
    why = f"{uuid4()}"
    # The settlement's call stands before the reservation's: it waits for it.
    park_call(fleet, CHUNK, f"{uuid4()}", [of_account[1:]], now_us(), why)
    park_call(fleet, CHUNK, f"{uuid4()}", [of_account[:1]], now_us(), why)
    for command in of_trade:
        park(fleet, CHUNK, why, command, now_us(), why)
    assert fleet.dead.replay(Wanted(reason=why)).sent == 5
    eventually(lambda: fleet.pool.get_available_tokens(user_id).get("USDT") == Decimal(50))
    eventually(lambda: fleet.pool.get_trade(trade_id).status == "completed")
    assert list(fleet.dead.letters(Wanted(reason=why))) == []


def test_parked_fills_of_one_trade_are_booked_in_the_order_in_which_they_were_parked(fleet: Fleet):
    """Each is older than the next: two that changed places would show, and the last takes out what is in."""
    trade, why = new_trade(amount="30", status="submitted"), f"{uuid4()}"
    trade_id = trade["trade_id"]
    fleet.pool.add_trade(trade)
    fills = [
        {"fill_id": f"{trade_id}/{number}", "role": "entry", "amount": "1", "price": f"{100 + number}"}
        for number in range(30)
    ]
    fills.append({"fill_id": f"{trade_id}/out", "role": "exit", "amount": "30", "price": "120"})
    for fill in fills:
        park(fleet, CHUNK, why, {"op": "add_fill", "trade_id": trade_id, "fill": fill}, now_us(), why)
    assert fleet.dead.replay(Wanted(reason=why)) == (len(fills), 0)
    eventually(lambda: fleet.pool.get_trade(trade_id).status == "completed")
    booked = [fill.fill_id for fill in fleet.pool.get_trade(trade_id).fills]
    assert booked == [fill["fill_id"] for fill in fills]

    def versions() -> list[int]:
        return [v for record_id, v in journaled_versions(fleet.settings) if record_id == trade_id]

    # The store is ahead of the journal; a message waits for it.
    eventually(lambda: len(versions()) > len(fills))
    assert versions() == list(range(1, len(fills) + 2))
    assert list(fleet.dead.letters(Wanted(reason=why))) == []
