"""Whatever a caller passes where an id, a time or prices belong, the refusal names the argument."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.loose_trades import buy, entry
from tradepool import Fill, Trade, TradePool, errors


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with TradePool.embedded(tmp_path_factory.mktemp("pool"), shard_count=2) as opened:
        yield opened


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda p: p.get_trade(None), "trade_id"),
        (lambda p: p.get_trade("t", as_of="yesterday"), "as_of"),
        (lambda p: p.get_trade_history(5), "trade_id"),
        (lambda p: p.get_trades_by_user(5), "user_id"),
        (lambda p: p.get_trades_by_symbol(None), "symbol"),
        (lambda p: list(p.get_open_trades(5)), "user_id"),
        (lambda p: p.get_user_summary(None), "user_id"),
        (lambda p: p.get_available_tokens(None), "user_id"),
        (lambda p: p.check_trades(None), "user_id"),
        (lambda p: p.mark_to_market([1]), "prices"),
        (lambda p: p.mark_to_market({5: 1}), "symbol of a price"),
        (lambda p: p.add_trades(None), "trades"),
        (lambda p: p.add_trades(buy()), "trades"),
        (lambda p: p.close_trade(None, 1), "trade_id"),
    ],
)
def test_a_wrong_argument_is_named(pool, call, field):
    with pytest.raises(errors.Rejected) as refusal:
        call(pool)
    assert refusal.value.field == field


def test_a_fill_of_somebody_else_is_refused(pool):
    trade_id = pool.add_trade(buy()).trade_id

    with pytest.raises(errors.InvalidTrade, match="user_id"):
        pool.add_fill(trade_id, entry("f1"), user_id="bob")

    assert pool.get_trade(trade_id).filled == 0
    assert pool.add_fill(trade_id, entry("f1"), user_id="ann").outcome == "applied"


def test_a_trade_made_by_hand_gets_its_id_and_time(pool):
    made = Trade.from_dict(buy())

    receipt = pool.add_trade(made)

    trade = pool.get_trade(receipt.trade_id)
    assert (trade.user_id, trade.amount) == ("ann", Decimal(1))
    assert trade.created_at > 0


def test_a_fill_can_be_made_in_the_order_of_its_fields(pool):
    trade_id = pool.add_trade(buy()).trade_id
    at = 1_750_000_000_000_000

    pool.add_fill(
        trade_id, Fill("f9", "entry", Decimal(1), Decimal(100), Decimal("0.1"), None, at, "order-1")
    )

    assert pool.get_trade(trade_id).fills[0].order_id == "order-1"


def test_a_version_that_moved_on_is_a_mismatch_and_a_conflict(pool):
    trade_id = pool.add_trade(buy()).trade_id
    pool.update_trade(trade_id, expected_version=1, strategy="one")

    for kind in (errors.VersionConflict, errors.Rejected):
        with pytest.raises(kind, match="expected_version"):
            pool.update_trade(trade_id, expected_version=1, strategy="two")
    assert pool.get_trade(trade_id).strategy == "one"


def test_history_is_read_at_any_kind_of_time(pool):
    trade_id = pool.add_trade(buy()).trade_id
    pool.update_trade(trade_id, strategy="later")

    now = pool.get_trade(trade_id, as_of=datetime.now(UTC))
    assert now.strategy == "later"
    with pytest.raises(errors.UnknownTrade):
        pool.get_trade(trade_id, as_of="2020-01-01")
