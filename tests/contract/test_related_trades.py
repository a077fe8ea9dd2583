"""Trades that name another one, through the real store: whose it is, wherever it lies; looked up together."""

from __future__ import annotations

from tests.loose_trades import buy
from tradepool import commanding
from tradepool.core import Result, TradeCore
from tradepool.errors import InvalidTrade

USERS = [f"u{number}" for number in range(8)]
"""Of several shards."""


def add(core: TradeCore, *trades: dict[str, object]) -> list[Result]:
    return core.apply([commanding.add_trade(trade) for trade in trades])


def test_another_users_trade_is_refused_whatever_shard_it_lies_in(core, store):
    assert len({store.keys.shard_of_user(user_id) for user_id in USERS}) > 1
    add(core, *[buy(trade_id=f"of-{user_id}", user_id=user_id) for user_id in USERS])
    trades = [buy(trade_id=f"beside-{u}", user_id="ann", related_trade_id=f"of-{u}") for u in USERS]
    assert {type(result) for result in add(core, *trades)} == {InvalidTrade}
    (own,) = add(core, buy(trade_id="own", user_id="u0", related_trade_id="of-u0"))
    assert own.outcome == "applied"


def test_a_ring_is_refused_within_a_batch_and_by_an_update(core):
    first, second, third = add(
        core,
        buy(trade_id="a", user_id="ann", related_trade_id="b"),
        buy(trade_id="b", user_id="ann", related_trade_id="a"),
        buy(trade_id="b", user_id="ann"),
    )
    assert (first.outcome, type(second), third.outcome) == ("applied", InvalidTrade, "applied")
    update = commanding.update_trade("b", {"related_trade_id": "a"}, expected_version=None)
    assert isinstance(core.apply([update])[0], InvalidTrade)


def test_what_a_batch_names_is_read_together(core, store, monkeypatch):
    add(core, *[buy(trade_id=f"t{n}", user_id="ann") for n in range(20)])
    reads: list[int] = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda records: reads.append(len(records)) or read(records))
    hedges = [buy(trade_id=f"h{n}", user_id="ann", related_trade_id=f"t{n}") for n in range(20)]
    assert {result.outcome for result in add(core, *hedges)} == {"applied"}
    assert reads == [20]
