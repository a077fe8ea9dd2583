"""Each task from a message to the journal, and what becomes of messages that cannot be applied."""

from __future__ import annotations

import base64
import json
import re
from contextlib import closing
from decimal import Decimal
from uuid import uuid4

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.trades import new_trade
from tests.waiting import eventually
from tradepool import wire
from tradepool.cli import main
from tradepool.clock import now_us
from tradepool.files.durable import FileLock
from tradepool.files.snapshot_info import LOCK_NAME, load_snapshot
from tradepool.fleet.programs import environment

RETRIED = re.compile(rb'"retries": ?[1-9]')


def test_a_trade_lives_through_every_task(fleet: Fleet):
    given = new_trade(status="submitted", market="spot")
    trade_id = given["trade_id"]
    fleet.call("trades.add_trade", given)
    eventually(lambda: fleet.knows(trade_id))
    entry = {"fill_id": f"{trade_id}-e", "role": "entry", "amount": "2", "price": "100"}
    fleet.call("trades.add_fill", trade_id, entry)
    eventually(lambda: fleet.pool.get_trade(trade_id).filled == 2)
    fleet.call("trades.update_trade", trade_id, stop_loss="90")
    eventually(lambda: fleet.pool.get_trade(trade_id).stop_loss == 90)
    fleet.call("trades.close_trade", trade_id, "110.5", fee="1")
    eventually(lambda: fleet.pool.get_trade(trade_id).status == "completed")
    fleet.call("trades.update_trade_pnl", trade_id, "19.75")
    eventually(lambda: fleet.pool.get_trade(trade_id).pnl_reported == Decimal("19.75"))
    assert fleet.pool.get_trade(trade_id).pnl == 20
    eventually(lambda: [v.version for v in fleet.pool.get_trade_history(trade_id)] == [1, 2, 3, 4, 5])


def test_balances_arrive(fleet: Fleet):
    fleet.call("tokens.update_available_tokens", "holder", {"BTC": "0.5", "USDT": 100})
    eventually(lambda: fleet.pool.get_available_tokens("holder"))
    assert fleet.pool.get_available_tokens("holder") == {"BTC": Decimal("0.5"), "USDT": Decimal(100)}


def test_bad_trades_are_parked_and_the_rest_of_the_batch_is_added(fleet: Fleet):
    good = [new_trade() for _ in range(3)]
    large = new_trade(signals={"note": "x" * 17 * 1024})
    task_id = fleet.call(
        "trades.add_trades", [good[0], new_trade(amount=-1), good[1], large, "junk", good[2]]
    )
    eventually(lambda: len(fleet.letters(task_id)) == 3)
    for added in good:
        eventually(lambda added=added: fleet.knows(added["trade_id"]))
    letters = fleet.letters(task_id)
    assert sorted(letter.reason["field"] for letter in letters) == ["amount", "command", "signals"]
    assert all(letter.task == "tasks.trades.add_trades" and letter.parked_at > 0 for letter in letters)
    assert large["trade_id"] in [
        letter.payload["trade"]["trade_id"] for letter in letters if "trade_id" in letter.payload["trade"]
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN")])
def test_a_number_that_is_none_is_refused_by_name(fleet: Fleet, value: object):
    bad = new_trade(amount=value)
    ours = fleet.sender.call("trades", "tasks.trades.add_trade", [bad])
    theirs = fleet.call("trades.add_trade", bad)
    eventually(lambda: fleet.letters(ours) and fleet.letters(theirs))
    assert fleet.letters(ours)[0].reason["field"] == "amount"
    assert fleet.letters(theirs)[0].reason["field"] == "amount"


def test_a_redelivered_add_without_an_id_adds_one_trade(fleet: Fleet):
    given = new_trade(user_id="twice")
    del given["trade_id"]
    task_id = str(uuid4())
    for _ in range(2):
        fleet.foreign.send_task("tasks.trades.add_trade", args=[given], queue="trades", task_id=task_id)
    eventually(lambda: fleet.pool.get_trades_by_user("twice").trades)
    after = new_trade(user_id="twice")
    fleet.call("trades.add_trade", after)
    eventually(lambda: fleet.knows(after["trade_id"]))
    eventually(lambda: fleet.pool.redis.llen("trades") == 0)
    assert len(fleet.pool.get_trades_by_user("twice").trades) == 2


def test_an_update_that_overtakes_its_add_is_applied(fleet: Fleet):
    given = new_trade(trade_id=f"late-{uuid4()}")
    fleet.call("trades.update_trade", given["trade_id"], stop_loss="80")
    eventually(lambda: fleet.pool.redis.llen("trades") == 0)
    fleet.call("trades.add_trade", given)
    eventually(
        lambda: fleet.knows(given["trade_id"]) and fleet.pool.get_trade(given["trade_id"]).stop_loss == 80
    )


def test_an_update_of_a_trade_that_never_comes_is_parked_in_the_end(fleet: Fleet):
    fleet.call("trades.close_trade", "no-such-trade", "100")
    eventually(lambda: any(letter.reason["error"] == "UnknownTrade" for letter in fleet.letters()))
    letter = next(letter for letter in fleet.letters() if letter.reason["error"] == "UnknownTrade")
    assert letter.payload["op"] == "close_trade"


def test_a_call_with_the_wrong_arguments_is_parked(fleet: Fleet):
    task_id = fleet.call("trades.add_trade", "one", "too many", 3)
    eventually(lambda: fleet.letters(task_id))
    assert fleet.letters(task_id)[0].reason["error"] == "TypeError"


def test_unreadable_and_unknown_messages_are_parked_and_no_log_shows_them(fleet: Fleet):
    unknown = fleet.foreign.send_task("tasks.trades.no_such_task", args=["S3CRET"], queue="trades").id
    broken = str(uuid4())
    message = {
        "body": base64.b64encode(b'[[{"S3CRET": json').decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": broken, "task": "tasks.trades.add_trade", "lang": "py"},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "trades", "routing_key": "trades"},
            "delivery_mode": 2,
            "delivery_tag": broken,
            "priority": 0,
        },
    }
    fleet.pool.redis.lpush("trades", json.dumps(message))
    pickled = fleet.foreign.send_task(
        "tasks.trades.add_trade", args=[1], queue="trades", serializer="pickle"
    ).id
    eventually(lambda: fleet.letters(unknown) and fleet.letters(broken) and fleet.letters(pickled))
    assert "no_such_task" in fleet.letters(unknown)[0].reason["problem"]
    assert not [node for node in fleet.nodes if "S3CRET" in node.logs()]


def envelope(properties: object = None, /, **parts: object) -> str:
    """A message as kombu stores it, with parts replaced; its delivery tag is its own."""
    right = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "wrong-envelope", "task": "tasks.trades.add_trade"},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "trades", "routing_key": "trades"},
            "delivery_mode": 2,
            "delivery_tag": str(uuid4()),
            "priority": 0,
        },
    }
    changed = {**right, **{name.replace("_", "-"): part for name, part in parts.items()}}
    if isinstance(properties, dict):
        changed["properties"] = {**right["properties"], **properties}
    return json.dumps(changed)


def body_of(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


GARBAGE = [
    "not json at all",
    "17",
    '{"body": 1}',
    "null",
    b"\xff\xfe",
    "[1, 2]",
    "[]",
    '[{}, "", "trades"]',
    '"text"',
    "true",
    "{}",
    "[" * 100_000,
    *("[" * depth + "]" * depth for depth in range(900, 1000, 9)),
    envelope({"delivery_info": {}}),
    envelope({"delivery_info": None}),
    envelope({"delivery_info": [1]}),
    envelope({"delivery_info": {"exchange": ["trades"], "routing_key": {}}}),
    envelope({"delivery_tag": None}),
    envelope({"delivery_tag": ["x"]}),
    envelope({"delivery_tag": "\ud800"}),
    envelope({"body_encoding": "rot13"}),
    envelope({"body_encoding": 8}),
    envelope({"priority": float("inf")}),
    envelope({"priority": [0]}),
    envelope({"delivery_mode": {"x": []}}),
    envelope(properties=None),
    envelope(properties=["delivery_tag"]),
    envelope(properties="delivery_tag"),
    envelope(body=None),
    envelope(body=""),
    envelope(body=5),
    envelope(body={"args": []}),
    envelope(body="abcde"),
    envelope(body=body_of(17)),
    envelope(body=body_of(None)),
    envelope(body=body_of([1, 2])),
    envelope(body=body_of({"args": 1, "kwargs": 2})),
    envelope(headers=None),
    envelope(headers=[1]),
    envelope(headers="task"),
    envelope(headers={}),
    envelope(headers={}, body=body_of({"task": "tasks.trades.no_such_task"})),
    envelope(headers={}, body=body_of({"task": "tasks.trades.add_trade"})),
    envelope(headers={}, body=body_of({"task": ["tasks.trades.add_trade"]})),
    envelope(headers={"task": None}),
    envelope(headers={"task": "tasks.trades.add_trade"}),
    envelope(headers={"task": "tasks.trades.no_such_task"}),
    envelope(headers={"task": ["tasks.trades.add_trade"], "id": "x"}),
    envelope(headers={"task": "tasks.trades.add_trade", "id": ["x"]}),
    envelope(headers={"task": "tasks.trades.add_trade", "id": "x", "timelimit": 5}),
    envelope(headers={"task": "tasks.trades.add_trade", "id": "x", "eta": [1]}),
    envelope(headers={"task": "tasks.trades.add_trade", "id": "x", "compression": ["x"]}),
    envelope(content_type=7),
    envelope(content_type=["application/json"]),
    envelope(content_encoding=7),
    envelope(headers="@").replace('"@"', '{"x": ' + "[" * 900 + "]" * 900 + "}"),
    envelope(headers="@").replace('"@"', '{"x": {"__type__": "uuid", "__value__": 5}}'),
    f'[{envelope()}, "", "trades"]',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_message_at_all_is_parked_and_the_worker_goes_on(fleet: Fleet, garbage: str | bytes):
    pids = [node.process.pid for node in fleet.nodes if node.process.exit_code is None]
    before = fleet.dead.count()
    fleet.pool.redis.lpush("trades", garbage)
    eventually(lambda: fleet.dead.count() == before + 1)
    eventually(lambda: fleet.pool.redis.hlen("unacked") == 0)
    assert [node.process.pid for node in fleet.nodes if node.process.exit_code is None] == pids
    after = new_trade()
    fleet.call("trades.add_trade", after)
    eventually(lambda: fleet.knows(after["trade_id"]))
    assert fleet.dead.count() == before + 1


@pytest.mark.parametrize(
    ("task", "queue", "arguments", "error"),
    [
        ("tasks.pnl.mark_to_market", "audit", [{"ETH/USDT": "x"}], "InvalidTrade"),
        ("tasks.audit.check_trades", "audit", [], "TypeError"),
        ("tasks.files.write_snapshot", "files", [1, 2], "TypeError"),
    ],
)
def test_a_task_that_is_asked_for_nonsense_leaves_one_letter(
    fleet: Fleet, task: str, queue: str, arguments: list[object], error: str
):
    task_id = fleet.foreign.send_task(task, args=arguments, queue=queue).id
    eventually(lambda: fleet.letters(task_id))
    eventually(lambda: fleet.pool.redis.llen(queue) == 0 and fleet.pool.redis.hlen("unacked") == 0)
    (letter,) = fleet.letters(task_id)
    assert letter.reason["error"] == error
    assert letter.reason["problem"]
    assert letter.task == task
    assert letter.payload == {"args": arguments, "kwargs": {}}


def test_a_parked_trade_can_be_sent_again(fleet: Fleet):
    given = new_trade(amount="-5")
    task_id = fleet.call("trades.add_trade", given)
    eventually(lambda: fleet.letters(task_id))
    before = fleet.dead.count()
    replayed = fleet.dead.replay()
    assert replayed.sent >= 1
    eventually(lambda: fleet.dead.count() >= before - replayed.kept)


def test_a_parked_call_is_sent_again_under_its_own_id(fleet: Fleet):
    task_id = fleet.call("trades.add_trade", "one", "too many", 3)
    eventually(lambda: fleet.letters(task_id))
    (parked,) = fleet.letters(task_id)
    fleet.dead.replay()
    eventually(lambda: [letter.parked_at > parked.parked_at for letter in fleet.letters(task_id)] == [True])


def test_an_audit_of_what_the_tasks_wrote_finds_nothing(fleet: Fleet):
    fleet.call("files.write_snapshot")
    eventually(lambda: (fleet.settings.data_dir / wire.QUEUE_TRADES).with_suffix(".json").exists())
    eventually(lambda: fleet.pool.check_all_trades(deep=True).ok)


def test_a_snapshot_that_is_asked_for_while_another_is_written_comes_after_it(fleet: Fleet):
    folder, asked_at = fleet.settings.data_dir, now_us()
    with closing(FileLock(folder / LOCK_NAME)):
        fleet.call("files.write_snapshot")
        eventually(lambda: any(RETRIED.search(one) for one in fleet.pool.redis.hvals("unacked")))
    eventually(lambda: (info := load_snapshot(folder)) is not None and info.at >= asked_at)


def test_parked_commands_are_listed_and_sent_again_from_a_shell(fleet: Fleet, monkeypatch, capsys):
    variables = environment(fleet.settings)
    for name in filter(lambda name: name.startswith("TRADEPOOL_"), variables):
        monkeypatch.setenv(name, variables[name])
    task_id = fleet.call("trades.add_trade", new_trade(amount="-7"))
    eventually(lambda: fleet.letters(task_id))

    assert main(["replay-dead", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [letter["reason"]["field"] for letter in listed if letter["task_id"] == task_id] == ["amount"]
    assert main(["replay-dead", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sent"] >= 1
    assert main(["replay-dead", "--list"]) == 0
