"""Tokens as a script and a bot ask for them: reservations in, reservations or their ids out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.loose_trades import buy, entry
from tests.waiting import eventually
from tradepool import PoolClient, Reservation, TradePool, errors, reservation_id
from tradepool.client.spool import Spool
from tradepool.model.ledger import ledger_id

RESERVE = {"asset": "USDT", "amount": "60", "ttl_s": 60}
_users = count(1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TradePool]:
    with TradePool.embedded(tmp_path_factory.mktemp("pool"), shard_count=2) as opened:
        yield opened


@pytest.fixture
def ann(pool: TradePool) -> str:
    """Somebody with 100 USDT."""
    user_id = f"ann-{next(_users)}"
    pool.update_available_tokens(user_id, {"USDT": 100})
    return user_id


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def client(settings: Any, spool: Path) -> Iterator[PoolClient]:
    """One that reaches nobody: what it takes stays in its spool."""
    nowhere = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    opened = PoolClient.connect(nowhere, spool=spool)
    yield opened
    opened.close(timeout=0)


def kept(client: PoolClient, spool: Path) -> list[tuple[str, str, str | None]]:
    """Queue, record and second record of what the client has in its spool, which it gives up."""
    client.close(timeout=0)
    opened = Spool(spool, entries_max=100)
    try:
        return [(item.queue, item.record_id, item.beside) for item in opened.entries()]
    finally:
        opened.close()


def test_a_reservation_is_made_settled_and_told(pool, ann):
    made = pool.reserve_tokens(ann, "USDT", "60", "order-1", 30)
    assert isinstance(made, Reservation)
    assert (made.status, made.amount, made.key) == ("open", Decimal(60), "order-1")
    assert made.expires_at - made.reserved_at == 30_000_000
    assert pool.get_available_tokens(ann) == {"USDT": Decimal(40)}
    assert pool.get_reservations(ann) == [made]

    settled = pool.settle_tokens(made.reservation_id, "59.5", {"BTC": "0.001"})

    assert (settled.status, settled.spent, settled.received) == (
        "settled",
        Decimal("59.5"),
        {"BTC": Decimal("0.001")},
    )
    assert pool.get_available_tokens(ann) == {"USDT": Decimal("40.5"), "BTC": Decimal("0.001")}
    assert pool.get_reservations(ann) == []


def test_a_repeat_of_any_token_call_changes_nothing(pool, ann):
    made = pool.reserve_tokens(ann, "USDT", 60, "k", 30)
    assert pool.reserve_tokens(ann, "USDT", 60, "k", 30) == made
    released = pool.release_tokens(made.reservation_id)
    assert released.status == "released"
    assert pool.release_tokens(made.reservation_id) == released
    assert pool.reserve_tokens(ann, "USDT", 60, "k", 30).status == "released"
    other = pool.reserve_tokens(ann, "USDT", 5, "l", 30)
    settled = pool.settle_tokens(other.reservation_id, 1)
    assert pool.settle_tokens(other.reservation_id, 1) == settled
    assert pool.get_available_tokens(ann) == {"USDT": Decimal(99)}


def test_what_cannot_be_is_refused_and_holds_nothing(pool, ann):
    made = pool.reserve_tokens(ann, "USDT", 60, "k", 30)
    with pytest.raises(errors.InsufficientTokens, match="amount"):
        pool.reserve_tokens(ann, "USDT", 41, "l", 30)
    with pytest.raises(errors.IdempotencyConflict, match="key"):
        pool.reserve_tokens(ann, "USDT", 5, "k", 30)
    with pytest.raises(errors.InvalidTokens, match="spent"):
        pool.settle_tokens(made.reservation_id, 61)
    with pytest.raises(errors.InvalidTokens, match="no such reservation"):
        pool.release_tokens(reservation_id(ann, "default", "nobody's"))
    pool.release_tokens(made.reservation_id)
    with pytest.raises(errors.IllegalTransition, match="already released"):
        pool.settle_tokens(made.reservation_id, 1)
    assert pool.get_available_tokens(ann) == {"USDT": Decimal(100)}


def test_a_trade_and_its_tokens_come_together_or_not_at_all(pool, ann):
    receipt = pool.add_trade(buy(user_id=ann), reserve=RESERVE)
    assert receipt.reservation.key == receipt.trade_id
    assert receipt.reservation.reservation_id == reservation_id(ann, "default", receipt.trade_id)
    with pytest.raises(errors.InsufficientTokens):
        pool.add_trade(buy(user_id=ann, trade_id=f"{ann}-2"), reserve=RESERVE)
    with pytest.raises(errors.UnknownTrade):
        pool.get_trade(f"{ann}-2")
    with pytest.raises(errors.InvalidTrade, match="amount"):
        pool.add_trade(buy(user_id=ann, amount=-1), reserve=RESERVE | {"amount": 1})
    assert [one.amount for one in pool.get_reservations(ann)] == [60]


def test_accounts_are_apart(pool, ann):
    pool.update_available_tokens(ann, {"USDT": 7}, account_id="other")
    made = pool.reserve_tokens(ann, "USDT", 7, "k", 30, account_id="other")
    assert pool.get_reservations(ann, account_id="other") == [made]
    assert pool.get_available_tokens(ann, account_id="other") == {}
    assert pool.get_available_tokens(ann) == {"USDT": Decimal(100)}


def test_what_is_over_is_free_and_given_back_once(pool, ann):
    pool.reserve_tokens(ann, "USDT", 60, "k", "0.1")
    eventually(lambda: pool.get_available_tokens(ann) == {"USDT": Decimal(100)})
    assert len(pool.get_reservations(ann)) == 1
    assert pool.expire_reservations() == 1
    assert pool.expire_reservations() == 0
    assert pool.get_reservations(ann) == []


def test_a_bot_has_the_reservations_id_at_once(client, spool):
    made = client.reserve_tokens("ann", "USDT", "60", "order:1", 30)
    assert made == reservation_id("ann", "default", "order:1")
    assert client.settle_tokens(made, "59.5", {"BTC": "0.001"}) == made
    assert client.release_tokens(made) == made
    assert kept(client, spool) == [("tokens", ledger_id("ann"), None)] * 3


def test_a_trade_with_a_reservation_belongs_to_both_of_its_records(client, spool):
    client.add_trade(buy(trade_id="t-1", account_id="main"), reserve=RESERVE)
    client.add_trade(buy(trade_id="t-2"), reserve=RESERVE | {"key": "k"})
    client.add_fill("t-1", entry("f1"))
    assert kept(client, spool) == [
        ("trades", "t-1", ledger_id("ann", "main")),
        ("trades", "t-2", ledger_id("ann")),
        ("trades", "t-1", None),
    ]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.reserve_tokens("ann", "USDT", 0, "k", 30), "amount"),
        (lambda c: c.reserve_tokens("ann", "USDT", 1, "", 30), "key"),
        (lambda c: c.reserve_tokens("ann", "USDT", 1, "k", 10**9), "ttl_s"),
        (lambda c: c.reserve_tokens("ann", "", 1, "k", 30), "asset"),
        (lambda c: c.reserve_tokens("", "USDT", 1, "k", 30), "user_id"),
        (lambda c: c.reserve_tokens("ann", "USDT", 1, "k", 30, account_id="a\x1fb"), "account_id"),
        (lambda c: c.settle_tokens("ann:default:k", -1), "spent"),
        (lambda c: c.settle_tokens("ann:default:k", 1, {"BTC": "x"}), "received.BTC"),
        (lambda c: c.settle_tokens("ann:default:k", 1, ["BTC"]), "received"),
        (lambda c: c.settle_tokens("k", 1), "reservation_id"),
        (lambda c: c.release_tokens("ann:default"), "reservation_id"),
        (lambda c: c.add_trade(buy(), reserve={"asset": "USDT"}), "reserve.amount"),
        (lambda c: c.add_trade(buy(), reserve=RESERVE | {"amount": "x"}), "reserve.amount"),
        (lambda c: c.add_trade(buy(), reserve=5), "reserve"),
    ],
)
def test_what_no_pool_would_grant_is_refused_in_the_bot(client, call, field):
    with pytest.raises(errors.Rejected) as refusal:
        call(client)
    assert refusal.value.field == field
    assert client.pending() == 0


def test_the_spool_of_an_older_bot_is_still_sent(spool):
    with sqlite3.connect(spool) as database:
        database.execute(
            "CREATE TABLE commands (seq INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, "
            "queue TEXT NOT NULL, record_id TEXT NOT NULL, user_id TEXT, body BLOB NOT NULL) STRICT"
        )
        database.execute("INSERT INTO commands VALUES (7, 'c', 'trades', 't-1', 'ann', x'7b7d')")
    database.close()
    opened = Spool(spool, entries_max=10)
    assert [(item.seq, item.records) for item in opened.entries()] == [(7, ("t-1",))]
    opened.close()
