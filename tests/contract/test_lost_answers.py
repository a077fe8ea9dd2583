"""A commit that is sent again, for its answer was lost, finds itself: its first results stand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from tests.loose_trades import buy, entry
from tests.lossy_wire import LossyWire
from tests.store_changes import archiving, change, new_trade
from tradepool.core import Result, TradeCore
from tradepool.errors import VersionConflict
from tradepool.model.codec import unpack
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, Command, UpdateTrade, UpdateTradePnl
from tradepool.model.receipt import Receipt
from tradepool.settings import Durability, Settings
from tradepool.store.fence import open_fence
from tradepool.store.watermark import Watermark

AS_OF = 1_780_000_000_000_000
BATCHES = 8


@pytest.fixture
def core(store, redis_client):
    settings = Settings(durability=Durability.REDIS, commit_attempts_max=12)
    return TradeCore(store, Watermark(redis_client, store.keys, listens=False), settings)


@pytest.fixture
def wire(monkeypatch):
    return LossyWire(monkeypatch)


def add(trade_id: str, **fields: Any) -> AddTrade:
    return AddTrade(command_id=f"add {trade_id}", as_of=AS_OF, trade=buy(trade_id=trade_id, **fields))


def close(trade_id: str) -> CloseTrade:
    return CloseTrade(
        command_id=f"close {trade_id}", as_of=AS_OF, trade_id=trade_id, price="110",
        fee=0, fee_currency=None, amount=None, at=None,
    )  # fmt: skip


def update(trade_id: str, name: str = "update", /, **changes: Any) -> UpdateTrade:
    return UpdateTrade(command_id=f"{name} {trade_id}", as_of=AS_OF, trade_id=trade_id, changes=changes)


def told(result: Result) -> tuple[object, ...]:
    """What a result says, but for the position."""
    if isinstance(result, Receipt):
        return result.trade_id, result.outcome, result.version
    return type(result).__name__, str(result)


def stored(store, trade_id: str):
    return unpack(store.read([(store.shard_of_trade(trade_id), trade_id)])[0])


def test_a_refused_command_stays_refused_when_the_answer_is_lost(core, store, wire):
    core.apply([add("t1")])
    wire.lose("answer lost")
    results = core.apply([close("t1"), update("t1", status="filled")])
    assert [told(result)[0] for result in results] == ["IllegalTransition", "t1"]
    assert (results[1].outcome, results[1].version) == ("applied", 2)
    assert results[1].position == store.last_position(store.shard_of_trade("t1"))
    assert (stored(store, "t1").status, stored(store, "t1").closed) == ("filled", 0)


def test_another_writer_that_comes_after_a_lost_answer_changes_none_of_its_results(core, store, wire):
    core.apply([add("t1"), add("t2")])
    wire.lose("answer lost")
    wire.then = lambda: core.apply(
        [update("t1", "rival", strategy="rival"), update("t1", "late", stop_loss="90")]
    )
    results = core.apply([close("t1"), update("t1", status="filled"), update("t2", strategy="ours")])
    assert [told(result)[1:] for result in results[1:]] == [("applied", 2), ("applied", 2)]
    assert told(results[0])[0] == "IllegalTransition"
    assert (stored(store, "t1").version, stored(store, "t1").strategy) == (4, "rival")


def test_what_another_writer_did_first_is_not_taken_for_ours(core, store, wire):
    core.apply([add("t1"), add("t2")])
    wire.lose("lost")
    wire.then = lambda: core.apply([update("t1", status="filled")])
    results = core.apply([close("t1"), update("t1", status="filled"), update("t2", strategy="ours")])
    assert [told(result) for result in results] == [
        ("t1", "applied", 3),
        ("t1", "duplicate", 3),
        ("t2", "applied", 2),
    ]
    assert stored(store, "t1").status == "completed"
    assert stored(store, "t2").strategy == "ours"


def test_as_many_changes_by_another_writer_are_not_taken_for_ours(core, store, wire):
    core.apply([add("t1")])
    wire.lose("lost")
    wire.then = lambda: core.apply([update("t1", f"rival{n}", strategy=f"rival{n}") for n in range(2)])
    (result,) = core.apply([update("t1", strategy="ours")])
    assert told(result) == ("t1", "applied", 4)
    assert stored(store, "t1").strategy == "ours"


def test_a_lost_answer_costs_an_archived_trade_no_conflict(store, wire):
    trade, other = new_trade("ann"), new_trade("ann")
    shard = store.keys.shard_of_user("ann")
    store.commit(shard, [change(None, trade), change(None, other)])
    wire.lose("answer lost")
    position = store.commit(shard, [archiving(trade)])
    assert position == store.last_position(shard)
    with pytest.raises(VersionConflict):
        store.commit(shard, [archiving(trade)])


def test_what_archived_trades_count_for_is_restored_once_though_the_answer_is_lost(store, monkeypatch):
    wire = LossyWire(monkeypatch, of=b"HINCRBY")
    wire.lose("answer lost")
    store.restore_archived_counters("ann", {"real|USDT|trades": 12})
    assert store.archived_counters("ann") == store.counters("ann") == {"real|USDT|trades": 12}
    assert wire.fate() == "arrives", "it has lost one"


@pytest.mark.parametrize("seed", range(4))
def test_with_answers_lost_and_rivals_at_work_it_is_as_one_after_another(
    core, store, redis_client, wire, seed
):
    """Rivals come once a batch is committed and nobody knows it: in the serial order they come after it."""
    rng = random.Random(seed)
    users = [name for name in map("u{}".format, range(99)) if store.keys.shard_of_user(name) == 0][:3]
    order: list[Command] = []
    lossy: dict[str, tuple[object, ...]] = {}

    def apply(commands: Sequence[Command], results: dict[str, tuple[object, ...]]) -> None:
        for command, result in zip(commands, core.apply(commands), strict=True):
            results[command.command_id] = told(result)

    for number in range(BATCHES):
        rivals = [_commands(rng, users, f"{number}-rival{n}", rng.choice([0, 3])) for n in range(2)]
        batch = _commands(rng, users, number, rng.choice([3, 12, 40]))
        wire.apply_beside(rivals, batch, rng=rng, order=order, apply=partial(apply, results=lossy))
    wire.lose()
    state = _state(store)

    redis_client.flushall()
    open_fence(redis_client)
    serial: dict[str, tuple[object, ...]] = {}
    for command in order:
        apply([command], serial)
    assert lossy == serial
    assert state == _state(store)


def _commands(rng: random.Random, users: Sequence[str], batch: object, count: int) -> list[Command]:
    """Commands of every kind, on few trades, so that they meet; many of them are refused."""
    ids = [f"{user}-{n}" for user in users for n in range(4)]
    return [_command(rng, f"{batch}.{n}", rng.choice(ids)) for n in range(count)]


def _command(rng: random.Random, name: str, trade_id: str) -> Command:
    head = {"command_id": name, "as_of": AS_OF}
    fill_id = f"v{rng.randrange(6)}"
    match rng.randrange(5):
        case 0:
            trade = buy(trade_id=trade_id, user_id=trade_id.partition("-")[0], amount="2")
            more = {"idempotency_key": f"k{rng.randrange(4)}"} if rng.random() < 0.5 else {}
            return AddTrade(**head, trade=trade | more)
        case 1:
            return AddFill(**head, trade_id=trade_id, fill=entry(fill_id), user_id=None)
        case 2:
            return CloseTrade(
                **head, trade_id=trade_id, price="110", fee=0, fee_currency=None,
                amount=rng.choice([None, "0.5"]), at=None,
            )  # fmt: skip
        case 3:
            changes = rng.choice([{"status": "filled"}, {"strategy": name}, {"status": "cancelled"}])
            return UpdateTrade(**head, trade_id=trade_id, changes=changes)
        case _:
            return UpdateTradePnl(**head, trade_id=trade_id, pnl=str(rng.randrange(9)), status="completed")


def _state(store) -> tuple[object, ...]:
    records = dict(store.scan_records(0))
    users = sorted(store.users(0))
    return records, [store.counters(user) for user in users], sorted(store.open_ids(0))
