"""Tokens through the fleet: every task, in any order, and what a bot's client makes of it."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from uuid import uuid4

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.trades import new_trade
from tests.waiting import eventually
from tradepool import PoolClient, reservation_id

CONFIRM_S = 20.0
TTL_S = 600
_users = count(1)


@pytest.fixture
def ann(fleet: Fleet) -> str:
    """Somebody with 100 USDT."""
    user_id = f"holder-{next(_users)}"
    fleet.pool.update_available_tokens(user_id, {"USDT": 100})
    return user_id


def available(fleet: Fleet, user_id: str) -> Decimal:
    return fleet.pool.get_available_tokens(user_id).get("USDT", Decimal(0))


def test_tokens_go_through_every_task(fleet: Fleet, ann: str):
    fleet.call("tokens.reserve_tokens", ann, "USDT", "60", "k", TTL_S)
    eventually(lambda: available(fleet, ann) == 40)
    fleet.call("tokens.settle_tokens", reservation_id(ann, "default", "k"), "59.5", {"BTC": "0.001"})
    eventually(lambda: available(fleet, ann) == Decimal("40.5"))
    fleet.call("tokens.reserve_tokens", ann, "USDT", 40, "l", TTL_S)
    eventually(lambda: available(fleet, ann) == Decimal("0.5"))
    fleet.call("tokens.release_tokens", reservation_id(ann, "default", "l"))
    eventually(lambda: available(fleet, ann) == Decimal("40.5"))
    fleet.call("tokens.reserve_tokens", ann, "USDT", 40, "m", 0.5)
    eventually(lambda: fleet.pool.get_reservations(ann))
    eventually(lambda: available(fleet, ann) == Decimal("40.5"))
    fleet.call("tokens.expire_reservations")
    eventually(lambda: fleet.pool.get_reservations(ann) == [])


def test_a_trade_is_added_with_its_tokens(fleet: Fleet, ann: str):
    given = new_trade(user_id=ann)
    wanted = {"asset": "USDT", "amount": "60", "ttl_s": TTL_S}
    fleet.call("trades.add_trade", given, reserve=wanted)
    eventually(lambda: [one.key for one in fleet.pool.get_reservations(ann)] == [given["trade_id"]])
    assert fleet.pool.get_trade(given["trade_id"]).version == 1
    task_id = fleet.call("trades.add_trade", new_trade(user_id=ann), reserve=wanted)
    eventually(lambda: fleet.letters(task_id))
    assert fleet.letters(task_id)[0].reason["error"] == "InsufficientTokens"
    assert len(fleet.pool.get_trades_by_user(ann).trades) == 1


def test_a_settlement_that_overtakes_its_reservation_is_applied(fleet: Fleet, ann: str):
    fleet.call("tokens.settle_tokens", reservation_id(ann, "default", "k"), "10")
    eventually(lambda: fleet.pool.redis.llen("tokens") == 0)
    fleet.call("tokens.reserve_tokens", ann, "USDT", "60", "k", TTL_S)
    eventually(lambda: available(fleet, ann) == 90)


@pytest.mark.parametrize("op", ["reserve_tokens", "update_available_tokens"])
def test_a_parked_token_call_is_sent_again_to_its_own_queue(fleet: Fleet, ann: str, op: str):
    calls = {
        "reserve_tokens": (ann, "EUR", "60", "k", TTL_S),
        "update_available_tokens": (ann, {"EUR": "-1"}),
    }
    command_id = f"{uuid4()}"
    task_id = fleet.call(f"tokens.{op}", *calls[op], command_id=command_id)
    eventually(lambda: fleet.letters(task_id))
    (parked,) = fleet.letters(task_id)
    assert parked.payload["command_id"] == command_id
    fleet.pool.update_available_tokens(ann, {"EUR": 100})
    assert fleet.dead.replay().sent >= 1
    if op == "reserve_tokens":
        eventually(lambda: [one.asset for one in fleet.pool.get_reservations(ann)] == ["EUR"])
    else:
        again = "tasks.trades.apply_changes"
        # Other tests' letters lie in the same queue, and some of them name no command.
        eventually(
            lambda: any(
                letter.task == again and command_id in str(letter.payload) for letter in fleet.letters()
            )
        )


def test_a_bots_tokens_and_trades_are_applied_in_its_order(fleet: Fleet):
    bot = f"bot-{uuid4()}"
    name = f"t-{uuid4()}"
    with PoolClient.connect(fleet.settings, linger_ms=0) as client:
        client.update_available_tokens(bot, {"USDT": 300})
        added = client.add_trade(
            new_trade(user_id=bot, trade_id=name), reserve={"asset": "USDT", "amount": 200, "ttl_s": TTL_S}
        )
        held = reservation_id(bot, "default", added)
        client.add_fill(added, {"fill_id": name, "role": "entry", "amount": "2", "price": "99"})
        assert client.settle_tokens(held, "198", {"BTC": 2}) == held
        refused = client.reserve_tokens(bot, "USDT", 1000, "too much", TTL_S)
        assert client.release_tokens(refused) == refused
        client.reserve_tokens(bot, "BTC", 2, "exit", TTL_S)
        assert client.flush(CONFIRM_S)
        assert client.confirm([added], CONFIRM_S) == {added: True}
        assert [one.error for one in client.rejections] == ["InsufficientTokens", "InvalidTokens"]
    assert fleet.pool.get_trade(added).filled == 2
    assert fleet.pool.get_available_tokens(bot) == {"USDT": Decimal(102)}
    assert [one.key for one in fleet.pool.get_reservations(bot)] == ["exit"]


def test_a_bot_hears_of_a_reservation_that_came_too_late(fleet: Fleet, ann: str):
    with PoolClient.connect(fleet.settings) as client:
        client.reserve_tokens(ann, "USDT", 60, "k", "0.001")
        client.update_available_tokens(ann, {"USDT": 5}, as_of="2020-01-01")
        assert client.flush(CONFIRM_S)
        assert [(one.field, one.problem) for one in client.rejections] == [
            ("ttl_s", "came too late, or its key is used up: nothing is reserved")
        ]
    assert fleet.pool.get_reservations(ann) == []
