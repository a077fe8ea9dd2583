"""Token commands and trades with reservations in any batches, over a lossy wire, with rivals in between."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from tests.conftest import SHARD_COUNT
from tests.loose_trades import buy
from tests.lossy_wire import LossyWire
from tradepool.core import Result, TradeCore
from tradepool.model.codec import unpack
from tradepool.model.commands import AddTrade, Command
from tradepool.model.ledger import Ledger, broken_rules, reservation_id
from tradepool.model.receipt import Receipt
from tradepool.model.token_commands import (
    ExpireTokens,
    ReleaseTokens,
    ReserveTokens,
    SettleTokens,
    UpdateTokens,
)
from tradepool.settings import Durability, Settings
from tradepool.store.fence import open_fence
from tradepool.store.keys import Keys
from tradepool.store.watermark import Watermark

AS_OF = 1_780_000_000_000_000
BATCHES = 8
USERS = [name for name in map("u{}".format, range(99)) if Keys(SHARD_COUNT).shard_of_user(name) == 0][:2]
"""Of one shard, for each shard has an order of its own."""


@pytest.fixture
def core(store, redis_client):
    settings = Settings(durability=Durability.REDIS, commit_attempts_max=12)
    watermark = Watermark(redis_client, store.keys, listens=False)
    return TradeCore(store, watermark, settings, clock=lambda: AS_OF + 2_000_000)


@pytest.mark.parametrize("seed", range(2))
def test_it_is_as_one_after_another(core, store, redis_client, monkeypatch, seed):
    rng, wire = random.Random(seed), LossyWire(monkeypatch)
    order: list[Command] = []
    lossy: dict[str, object] = {}

    def apply(commands: Sequence[Command], results: dict[str, object]) -> None:
        for command, result in zip(commands, core.apply(commands), strict=True):
            results.setdefault(command.command_id, told(result))

    for number in range(BATCHES):
        rivals = [some_commands(rng, f"{number}-rival{n}", rng.choice([0, 3])) for n in range(2)]
        batch = some_commands(rng, str(number), rng.choice([3, 12, 30]))
        wire.apply_beside(rivals, batch, rng=rng, order=order, apply=partial(apply, results=lossy))
    wire.lose()
    state = records_of(store)
    assert all(set(broken_rules(ledger)) <= {"USDT: frozen"} for ledger in ledgers_in(state))

    redis_client.flushall()
    open_fence(redis_client)
    serial: dict[str, object] = {}
    for command in order:
        apply([command], serial)
    assert lossy == serial
    assert state == records_of(store)


def told(result: Result) -> object:
    """What a result says, but for the position."""
    if isinstance(result, Receipt):
        return result.trade_id, result.outcome, result.version, result.reservation, result.expired
    return type(result).__name__, str(result)


def some_commands(rng: random.Random, batch: str, count: int) -> list[Command]:
    """Commands of every kind, on few keys and trades, so that they meet; many of them are refused."""
    return [some_command(rng, f"{batch}.{number}") for number in range(count)]


def some_command(rng: random.Random, name: str) -> Command:
    head: dict[str, Any] = {"command_id": name, "as_of": AS_OF}
    user = {"user_id": rng.choice(USERS)}
    held = {"asset": "USDT", "amount": rng.choice([1, 1, 5]), "ttl_s": rng.choice([1, 60, 60])}
    key, once = f"k{rng.randrange(12)}", {"idempotency_key": f"i{rng.randrange(3)}"}
    reservation = {"reservation_id": reservation_id(user["user_id"], "default", key)}
    trade = buy(trade_id=f"{user['user_id']}-{rng.randrange(6)}", **user)
    kinds = [
        UpdateTokens(**head, **user, tokens={"USDT": rng.choice([20, 20, 2])}),
        ReserveTokens(**head, **user, **held, key=key),
        AddTrade(**head, trade=trade | rng.choice([{}, once]), reserve=held),
        AddTrade(**head, trade=buy(**user, **once), reserve=rng.choice([None, held, held | {"key": key}])),
        ExpireTokens(**head, **user),
        ReleaseTokens(**head, **reservation),
        SettleTokens(**head, **reservation, spent=1, received={"USDT": 1}),
    ]
    return rng.choices(kinds, weights=[1, 3, 2, 2, 1, 1, 1])[0]


def records_of(store) -> dict[str, bytes]:
    return {key: value for shard in store.keys.shards for key, value in store.scan_records(shard)}


def ledgers_in(records: dict[str, bytes]) -> list[Ledger]:
    return [record for record in map(unpack, records.values()) if isinstance(record, Ledger)]
