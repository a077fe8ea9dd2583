"""Balances, reservations and trades with a reservation, through the core on a real server."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

import msgspec
import pytest

from tests.loose_trades import buy, entry
from tests.store_changes import archiving
from tradepool import expiring
from tradepool.core import TradeCore
from tradepool.errors import (
    IdempotencyConflict,
    InsufficientTokens,
    InvalidTokens,
    InvalidTrade,
    UnknownTrade,
)
from tradepool.model.codec import unpack_ledger, unpack_trade
from tradepool.model.commands import AddTrade, CloseTrade, Command, UpdateTrade
from tradepool.model.ledger import Ledger, Reservation, ledger_id, open_reservations, reservation_id
from tradepool.model.receipt import Receipt
from tradepool.model.token_commands import ReleaseTokens, ReserveTokens, SettleTokens, UpdateTokens
from tradepool.settings import Durability, Settings
from tradepool.store.watermark import Watermark
from tradepool.tokens import TokenQueries

NOW = 1_780_000_000_000_000
US_PER_S = 1_000_000
_numbers = count(1)


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def core(store, redis_client, clock):
    settings = Settings(durability=Durability.REDIS)
    return TradeCore(store, Watermark(redis_client, store.keys, listens=False), settings, clock)


@pytest.fixture
def tokens(store, clock) -> TokenQueries:
    return TokenQueries(store, clock)


def head(name: str | None = None) -> dict[str, Any]:
    return {"command_id": name or f"c{next(_numbers)}", "as_of": NOW}


def told(amount: object, asset: str = "USDT", **fields: Any) -> UpdateTokens:
    return UpdateTokens(**head(), **{"user_id": "ann", "tokens": {asset: amount}} | fields)


def reserving(amount: object, key: str, **fields: Any) -> ReserveTokens:
    given = {"user_id": "ann", "asset": "USDT", "amount": amount, "key": key, "ttl_s": 60}
    return ReserveTokens(**head(), **given | fields)


def settling(key: str, spent: object, **received: object) -> SettleTokens:
    return SettleTokens(**head(), reservation_id=named(key), spent=spent, received=received)


def adding(amount: object = 100, trade_id: str = "t1", **fields: Any) -> AddTrade:
    """Add a trade and set `amount` aside for it; `key` and the like belong to the reservation."""
    reserve = {"asset": "USDT", "amount": amount, "ttl_s": 60}
    reserve |= {name: fields.pop(name) for name in ("key", "ttl_s", "asset") if name in fields}
    return AddTrade(**head(fields.pop("name", None)), trade=buy(trade_id=trade_id, **fields), reserve=reserve)


def again(command: Any) -> Any:
    """The same request by a caller who knows nothing of the first."""
    return msgspec.structs.replace(command, **head())


def named(key: str, user_id: str = "ann") -> str:
    return reservation_id(user_id, "default", key)


def apply(core: TradeCore, command: Command) -> Receipt:
    (result,) = core.apply([command])
    assert isinstance(result, Receipt), result
    return result


def refusal(core: TradeCore, command: Command) -> Any:
    (result,) = core.apply([command])
    assert not isinstance(result, Receipt), result
    return result


def held(receipt: Receipt) -> Reservation:
    assert receipt.reservation is not None
    return receipt.reservation


def ledger_of(store, user_id: str = "ann") -> Ledger:
    return unpack_ledger(store.read([(store.keys.shard_of_user(user_id), ledger_id(user_id))])[0])


def has_trade(store, trade_id: str) -> bool:
    return store.read([(store.keys.shard_of_user("ann"), trade_id)]) != [None]


def test_a_receipt_has_the_reservation_that_its_command_was_about(core, tokens):
    assert apply(core, told(100)).reservation is None
    made = apply(core, reserving(40, "k"))
    assert (made.trade_id, made.version, held(made).status) == (ledger_id("ann"), 2, "open")
    assert tokens.get_available_tokens("ann") == {"USDT": 60}
    settled = held(apply(core, settling("k", 30, BTC="0.5")))
    assert (settled.status, settled.spent, settled.received) == ("settled", 30, {"BTC": Decimal("0.5")})
    assert held(apply(core, settling("k", 30, BTC="0.5"))) == settled
    apply(core, reserving(10, "k2"))
    release = ReleaseTokens(**head(), reservation_id=named("k2"))
    assert held(apply(core, release)).status == "released"
    assert held(apply(core, again(release))).status == "released"
    assert tokens.get_available_tokens("ann") == {"USDT": 70, "BTC": Decimal("0.5")}


def test_all_token_commands_may_share_a_batch_with_trades(core, store):
    results = core.apply(
        [told(100), reserving(40, "k"), adding(60), settling("k", 40), reserving(1, "k3"), told(5, "BTC")]
    )
    refused = results.pop(4)
    assert isinstance(refused, InsufficientTokens)
    assert [(result.outcome, result.version) for result in results] == [
        ("applied", 1),
        ("applied", 2),
        ("applied", 1),
        ("applied", 4),
        ("applied", 5),
    ]
    assert ledger_of(store).assets["USDT"].reserved == 60


def test_a_trade_and_its_reservation_are_one_commit(core, store):
    apply(core, told(100))
    before = store.last_position(store.keys.shard_of_user("ann"))
    receipt = apply(core, adding(30))
    assert (receipt.trade_id, receipt.outcome, receipt.version) == ("t1", "applied", 1)
    assert open_reservations(ledger_of(store), NOW) == [held(receipt)]
    (lapsed,) = open_reservations(ledger_of(store), held(receipt).expires_at)
    assert lapsed.status == "expired"
    assert (held(receipt).amount, held(receipt).expires_at) == (30, NOW + 60 * US_PER_S)
    entries = store._client.xrange(store.keys.outbox(store.keys.shard_of_user("ann")), min=f"({before}")
    assert [[name[:2] for name in fields] for _, fields in entries] == [[b"ta", b"lu"]]


def test_the_reservation_is_the_accounts_own(core, store):
    apply(core, told(100, account_id="sub"))
    assert isinstance(refusal(core, adding(30)), InsufficientTokens)
    assert held(apply(core, adding(30, account_id="sub"))).reservation_id == reservation_id(
        "ann", "sub", "t1"
    )


def test_a_trade_is_not_added_where_its_tokens_cannot_be_set_aside(core, store):
    apply(core, told(100))
    error = refusal(core, adding(101))
    assert isinstance(error, InsufficientTokens)
    assert str(error) == "reserve.amount: not enough tokens (got 101); 100 USDT available"
    assert not has_trade(store, "t1")
    assert isinstance(refusal(core, CloseTrade(**head(), trade_id="t1", price=1)), UnknownTrade)
    assert ledger_of(store).version == 1
    assert list(store.user_trade_ids("ann")) == []


def test_nothing_is_set_aside_for_a_trade_that_is_refused(core, store):
    apply(core, told(100))
    assert isinstance(refusal(core, adding(1, side="up")), InvalidTrade)
    apply(core, AddTrade(**head(), trade=buy(trade_id="t0", fills=[entry("v1")])))
    taken = adding(1, fills=[entry("v1")])
    assert isinstance(refusal(core, taken), IdempotencyConflict)
    assert isinstance(refusal(core, adding(1, "t0", symbol="ETH/USDT")), IdempotencyConflict)
    assert ledger_of(store).version == 1


@pytest.mark.parametrize(
    ("reserve", "field"),
    [
        ({}, "asset"),
        ({"asset": "USDT", "amount": 1}, "ttl_s"),
        ({"asset": "USDT", "amount": "NaN", "ttl_s": 1}, "amount"),
        ({"asset": "USDT", "amount": 0, "ttl_s": 1}, "amount"),
        ({"asset": "USDT", "amount": 1, "ttl_s": -1}, "ttl_s"),
        ({"asset": 7, "amount": 1, "ttl_s": 1}, "asset"),
        ({"asset": "USDT", "amount": 1, "ttl_s": 1, "key": ""}, "key"),
        ({"asset": "USDT", "amount": 1, "ttl_s": 1, "ttl": 1}, "ttl"),
        ({"asset": "USDT", "amount": 1, "ttl_s": 1, 5: 1}, "5"),
    ],
)
def test_a_loose_reserve_that_means_nothing_is_refused_by_field(core, store, reserve, field):
    apply(core, told(100))
    error = refusal(core, AddTrade(**head(), trade=buy(trade_id="t1"), reserve=reserve))
    assert (type(error), error.field) == (InvalidTokens, f"reserve.{field}")
    assert not has_trade(store, "t1")


def test_a_loose_account_is_refused_as_with_any_trade(core):
    for account_id in (7, "", "a\x1fb"):
        assert refusal(core, adding(account_id=account_id)).field == "account_id"


def test_an_add_that_comes_again_is_a_duplicate_of_both(core, store):
    apply(core, told(100))
    first = adding(100, name="first")
    made = apply(core, first)
    for repeat in (first, again(first)):
        receipt = apply(core, repeat)
        assert (receipt.outcome, receipt.version, receipt.reservation) == ("duplicate", 1, made.reservation)
    results = core.apply([first, again(first), reserving(1, "k")])
    assert [getattr(result, "outcome", "refused") for result in results] == ["duplicate"] * 2 + ["refused"]
    assert ledger_of(store).version == 2


def test_an_add_that_comes_again_under_its_idempotency_key_is_a_duplicate_of_both(core):
    """All that is free is set aside by the first: who forgets to look finds too little for the second."""
    apply(core, told(100))
    fields = buy(idempotency_key="once")
    reserve = {"asset": "USDT", "amount": 100, "ttl_s": 60}
    first = AddTrade(**head(), trade=fields, reserve=reserve)
    made = apply(core, first)
    assert held(made).key == made.trade_id
    receipt = apply(core, again(first))
    assert (receipt.outcome, receipt.trade_id, held(receipt)) == ("duplicate", made.trade_id, held(made))
    named_key = again(msgspec.structs.replace(first, reserve=reserve | {"key": "other"}))
    assert isinstance(refusal(core, named_key), IdempotencyConflict)


def test_an_add_that_comes_again_tells_what_became_of_its_tokens(core):
    apply(core, told(100))
    first = adding(40)
    apply(core, first)
    apply(core, settling("t1", 40))
    for repeat in (first, again(first)):
        assert held(apply(core, repeat)).status == "settled"


def test_a_repeat_with_other_tokens_is_a_conflict(core, store):
    apply(core, told(100))
    apply(core, adding(40))
    for other in (adding(41), adding(40, asset="BTC"), adding(40, key="k2")):
        assert isinstance(refusal(core, other), IdempotencyConflict)
    apply(core, AddTrade(**head(), trade=buy(trade_id="t2")))
    error = refusal(core, adding(1, "t2"))
    assert isinstance(error, IdempotencyConflict)
    assert error.field == "reserve"
    assert ledger_of(store).version == 2


def test_a_reservation_backs_one_trade(core, store):
    apply(core, told(100))
    apply(core, reserving(40, "k"))
    error = refusal(core, adding(40, key="k"))
    assert (type(error), error.field) == (IdempotencyConflict, "reserve.key")
    apply(core, adding(10, "t1", key="mine"))
    assert isinstance(refusal(core, adding(10, "t2", key="mine")), IdempotencyConflict)
    assert not has_trade(store, "t2")


def test_an_add_whose_tokens_came_too_late_is_refused_and_not_silently_dropped(core, store, clock):
    apply(core, told(100))
    clock.now += 60 * US_PER_S
    error = refusal(core, adding(1))
    assert (type(error), error.field) == (InvalidTokens, "reserve.ttl_s")
    assert not has_trade(store, "t1")


def test_an_archived_trades_add_comes_again_with_what_became_of_its_tokens(core, store):
    apply(core, told(100))
    first = adding(40)
    apply(core, first)
    apply(core, settling("t1", 40))
    apply(core, UpdateTrade(**head(), trade_id="t1", changes={"status": "cancelled"}))
    shard = store.keys.shard_of_user("ann")
    store.commit(shard, [archiving(unpack_trade(store.read([(shard, "t1")])[0]))])
    for repeat in (first, again(first)):
        receipt = apply(core, repeat)
        assert (receipt.outcome, held(receipt).status) == ("duplicate", "settled")
    assert isinstance(refusal(core, adding(41)), IdempotencyConflict)


def test_expired_reservations_are_free_at_once_and_given_back_once(core, store, tokens, clock):
    for user_id in ("ann", "bob"):
        apply(core, told(100, user_id=user_id))
        for key in ("a", "b"):
            apply(core, reserving(50, key, user_id=user_id, ttl_s=1 if key == "a" else 60))
    assert core.expire_reservations() == 0
    clock.now += US_PER_S
    assert tokens.get_available_tokens("ann") == {"USDT": 50}
    assert ledger_of(store).assets["USDT"].reserved == 100
    assert core.expire_reservations() == 2
    assert core.expire_reservations() == 0
    assert ledger_of(store).assets["USDT"].reserved == 50
    clock.now += 60 * US_PER_S
    assert core.expire_reservations() == 2
    assert ledger_of(store, "bob").reservations == {}


def test_more_accounts_than_one_step_takes_are_all_given_back(core, clock, monkeypatch):
    monkeypatch.setattr(expiring, "BATCH", 2)
    accounts = [f"a{number}" for number in range(5)]
    core.apply([told(2, account_id=account_id) for account_id in accounts])
    for key in ("a", "b"):
        core.apply([reserving(1, key, account_id=account_id) for account_id in accounts])
    clock.now += 60 * US_PER_S
    assert core.expire_reservations() == 10


def test_a_reserve_that_gives_back_what_is_over_says_so(core, clock):
    apply(core, told(100))
    apply(core, reserving(100, "a", ttl_s=1))
    clock.now += US_PER_S
    assert apply(core, reserving(100, "b")).expired == 1
    assert core.expire_reservations() == 0


def test_a_refused_trade_keeps_no_fill_from_the_trades_beside_it(core):
    """Its second fill is another's, so its first is still free."""
    taken, free = entry("taken", "0.5"), entry("free", "0.5")
    trades = [buy(trade_id=f"t{number}") for number in range(3)]
    trades[0]["fills"], trades[1]["fills"], trades[2]["fills"] = [taken], [free, taken], [free]
    results = core.apply([AddTrade(**head(), trade=trade) for trade in trades])
    assert [type(result) for result in results] == [Receipt, IdempotencyConflict, Receipt]


def test_users_are_named_by_one_rule_for_trades_and_ledgers(core):
    for name in ("u" * 129, "", " ", "a\x1fb", "a\u2028b", 7):
        trade = AddTrade(**head(), trade=buy(user_id=name, trade_id=None))
        fields = [refusal(core, command).field for command in (trade, told(1, user_id=name))]
        assert fields == ["user_id", "user_id"]
    assert apply(core, told(1, user_id="u" * 128)).version == 1


def test_an_idempotency_key_used_twice_in_a_batch_does_not_hide_whose_id_it_is(core):
    """The second add names a trade that is there, and the key of the one just added beside it."""
    apply(core, AddTrade(**head(), trade=buy(trade_id="old")))
    fields = {"idempotency_key": "once", "symbol": "ETH/USDT"}
    added, repeat = core.apply(
        [AddTrade(**head(), trade=buy(trade_id=name, **fields)) for name in ("new", "old")]
    )
    assert added.outcome == "applied"
    assert isinstance(repeat, IdempotencyConflict)
    assert repeat.field == "trade_id"
