"""Parked commands go back as they were sent: to their queue, with their ids and time, in their order."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
import redis

from tradepool import wire
from tradepool.errors import Misconfigured, ResourceUnavailable
from tradepool.fleet import dead_letters
from tradepool.fleet.dead_letters import DeadLetter, DeadLetters, Wanted
from tradepool.model.commands import TradeCommand
from tradepool.model.token_commands import TokenCommand

SENT_AT = 1_750_000_000_000_000
PARKED_AT = SENT_AT + 5_000_000

Park = Callable[..., None]


@pytest.fixture
def park(redis_client: redis.Redis) -> Park:
    """Parks a letter of `apply_changes`, with other parts where they are given."""

    def parked(payload: Any, **parts: Any) -> None:
        letter = {
            "reason": {"error": "InvalidTrade", "field": "amount", "problem": "must be above zero"},
            "task": wire.APPLY_CHANGES,
            "task_id": "task-1",
            "payload": payload,
            "sent_at": SENT_AT,
            "parked_at": PARKED_AT,
        }
        body = json.dumps(letter | parts).encode()
        redis_client.lpush(wire.QUEUE_DEAD, json.dumps({"body": base64.b64encode(body).decode()}))

    return parked


@pytest.fixture
def dead(settings, redis_client: redis.Redis):
    with DeadLetters(settings) as letters:
        yield letters


def sent(client: redis.Redis, queue: str) -> list[tuple[dict[str, Any], list[Any], dict[str, Any]]]:
    """Headers, arguments and named arguments of what was sent to `queue`, oldest first."""
    messages = [wire.decode(raw) for raw in reversed(client.lrange(queue, 0, -1))]
    bodies = [wire.decode(base64.b64decode(message["body"])) for message in messages]
    return [(message["headers"], *body[:2]) for message, body in zip(messages, bodies, strict=True)]


def command(number: int, **fields: Any) -> dict[str, Any]:
    return {"op": "close_trade", "command_id": f"c-{number}", "as_of": SENT_AT, "trade_id": "t", **fields}


@pytest.mark.parametrize(
    ("kinds", "queue"), [(TradeCommand, wire.QUEUE_TRADES), (TokenCommand, wire.QUEUE_TOKENS)]
)
def test_every_kind_of_command_is_sent_to_its_own_queue(redis_client, dead, park, kinds, queue):
    ops = [kind.__struct_config__.tag for kind in get_args(kinds)]
    for op in ops:
        park({"op": op})
    assert {letter.queue for letter in dead.letters()} == {queue}
    assert dead.replay() == (len(ops), 0)
    assert dead.count() == 0
    ((_, (commands,), _),) = sent(redis_client, queue)
    assert [one["op"] for one in commands] == ops


def test_commands_go_together_in_the_order_in_which_they_were_parked(
    redis_client, dead, park, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dead_letters, "COMMANDS_MAX", 3)
    for number in range(5):
        park(command(number))
        park({"op": "settle_tokens", "command_id": f"s-{number}", "as_of": SENT_AT})
    assert dead.replay() == (10, 0)
    for queue, letter in (("trades", "c"), ("tokens", "s")):
        names = [[one["command_id"] for one in commands] for _, (commands,), _ in sent(redis_client, queue)]
        assert names == [[f"{letter}-{n}" for n in (0, 1, 2)], [f"{letter}-{n}" for n in (3, 4)]]
        assert all(kwargs["overtaken_since"] > PARKED_AT for _, _, kwargs in sent(redis_client, queue))


def test_a_whole_call_keeps_its_id_its_time_and_its_order(redis_client, dead, park):
    trades = [{"user_id": "ann", "symbol": "BTC/USDT"}, {"user_id": "bob"}]
    park(command(1))
    park({"args": [trades], "kwargs": {}}, task="tasks.trades.add_trades", task_id="whole")
    park(command(2))
    park({"args": [[command(3)]], "kwargs": {"overtaken_since": 7}}, task_id="chunk", sent_at=None)
    assert dead.replay() == (4, 0)
    messages = sent(redis_client, "trades")
    assert [headers["id"] for headers, _, _ in messages][1::2] == ["whole", "chunk"]
    assert [headers["sent_at"] for headers, _, _ in messages][1::2] == [SENT_AT, PARKED_AT]
    assert [args for _, args, _ in messages] == [[[command(1)]], [trades], [[command(2)]], [[command(3)]]]
    assert messages[3][2] == {"overtaken_since": 7}


def test_what_an_older_release_parked_without_a_name_gets_the_same_one_each_time(redis_client, dead, park):
    for _ in range(2):
        park({"op": "close_trade", "trade_id": "t", "price": "1"}, sent_at=None)
        assert dead.replay() == (1, 0)
    first, second = (commands[0] for _, (commands,), _ in sent(redis_client, "trades"))
    assert first == second
    assert first["as_of"] == PARKED_AT
    assert first["command_id"].startswith("task-1:")


def test_a_message_whose_task_was_not_known_goes_back_once_it_is(redis_client, dead, park):
    headers = {"id": "newer", "task": "tasks.trades.add_trade", "sent_at": SENT_AT}
    park(
        {"headers": headers, "body": '[[{"user_id": "ann"}], {}, {}]'}, task=headers["task"], task_id="newer"
    )
    park({"headers": headers, "body": "no json"}, task=headers["task"])
    park({"headers": headers, "body": "[" * 100_000}, task=headers["task"])
    park("ascii text")
    assert dead.replay() == (1, 3)
    ((sent_again, args, kwargs),) = sent(redis_client, "trades")
    assert (sent_again["id"], sent_again["sent_at"]) == ("newer", SENT_AT)
    assert (args, kwargs) == ([{"user_id": "ann"}], {})
    assert dead.count() == 3


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), [1, 2, 3]),
        (Wanted(task="add_trade"), [1]),
        (Wanted(task="tasks.trades.add_trade"), [1]),
        (Wanted(task="trade"), []),
        (Wanted(reason="UnknownTrade"), [2]),
        (Wanted(reason="Unknown"), []),
        (Wanted(reason="above"), [1, 3]),
        (Wanted(reason="amount", task="apply_changes"), [3]),
        (Wanted(name="c-2"), [2]),
        (Wanted(name="task-3"), [3]),
        (Wanted(name="ann"), [1]),
        (Wanted(name="nobody"), []),
        (Wanted(name=""), []),
    ],
)
def test_letters_are_chosen_by_task_reason_and_id(redis_client, dead, park, wanted, found):
    added = {"op": "add_trade", "command_id": "c-1", "trade": {"trade_id": "t-1", "user_id": "ann"}}
    park(added, task="tasks.trades.add_trade", task_id="task-1", parked_at=1)
    park(
        command(2),
        reason={"error": "UnknownTrade", "problem": "no such trade"},
        task_id="task-2",
        parked_at=2,
    )
    park(command(3), task_id="task-3", parked_at=3)
    assert [letter.parked_at for letter in dead.letters(wanted)] == found
    assert dead.replay(wanted, limit=2) == (min(2, len(found)), 0)
    assert [letter.parked_at for letter in dead.letters()] == [n for n in (1, 2, 3) if n not in found[:2]]


def test_a_replay_that_ends_between_sending_and_removing_leaves_the_letters(
    redis_client, dead, park, monkeypatch: pytest.MonkeyPatch
):
    park(command(1))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dead, "_remove", crash)
    with pytest.raises(KeyboardInterrupt):
        dead.replay()
    monkeypatch.undo()
    assert dead.replay() == (1, 0)
    first, again = (commands for _, (commands,), _ in sent(redis_client, "trades"))
    assert first == again, "the same commands, so the second is a duplicate"


def test_what_is_discarded_is_on_disk_before_it_is_gone(
    settings, redis_client, dead, park, monkeypatch: pytest.MonkeyPatch
):
    kept = settings.data_dir / "dead_discarded.jsonl"
    for number in (1, 2, 3):
        park(command(number), task_id=f"task-{number}")
    park("ascii text", task="tasks.trades.add_trade")
    if settings.data_dir.exists():
        settings.data_dir.rmdir()
    with pytest.raises(Misconfigured, match=r"^TRADEPOOL_DATA_DIR: there is no folder .*; discard on"):
        dead.discard(Wanted())
    settings.data_dir.mkdir()
    kept.mkdir()
    with pytest.raises(ResourceUnavailable, match="Is a directory; what is discarded is written there first"):
        dead.discard(Wanted())
    assert dead.count() == 4
    kept.rmdir()
    kept.write_text('{"torn')

    def looked_at(raws: Any) -> None:
        assert len(kept.read_bytes().splitlines()) == 1 + len(raws)
        raise KeyboardInterrupt

    with monkeypatch.context() as crashing:
        crashing.setattr(dead, "_remove", looked_at)
        with pytest.raises(KeyboardInterrupt):
            dead.discard(Wanted(name="task-2"))
    assert dead.discard(Wanted(task="apply_changes"), limit=2) == 2
    assert [letter.task_id for letter in dead.letters()] == ["task-3", "task-1"]
    assert dead.discard(Wanted()) == 2
    assert (dead.count(), redis_client.llen(wire.QUEUE_TRADES)) == (0, 0)
    lines = [json.loads(line) for line in kept.read_text().splitlines()[1:]]
    payloads = [command(2), command(1), command(2), command(3), "ascii text"]
    assert [line["payload"] for line in lines] == payloads
    assert all(line["discarded_at"] > line["parked_at"] == PARKED_AT for line in lines)


def test_any_payload_has_ids_and_a_queue():
    for payload in (
        None,
        5,
        [],
        {"trade": 5},
        {"op": 5},
        {"args": 1, "kwargs": 2},
        {"headers": {}, "body": "["},
    ):
        letter = DeadLetter(payload=payload)
        assert (letter.ids, letter.queue) == (frozenset(), "")
