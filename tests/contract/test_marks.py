"""The marks that stay readable: of users who hold something, and of those who no longer do."""

from __future__ import annotations

import pytest

from tests.loose_trades import buy
from tradepool import TradePool


@pytest.fixture
def pool(tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=4) as opened:
        yield opened


def test_who_has_become_flat_is_marked_as_flat(pool):
    closing = pool.add_trade(buy(user_id="ann", status="filled", amount="2", price="100")).trade_id
    pool.add_trade(buy(user_id="bob", status="filled", amount="2", price="100"))
    pool.set_prices({"BTC/USDT": "110"})
    first = pool.mark_to_market(at="2026-01-01T00:00:00Z")
    assert pool.get_marks("ann")["by_currency"] != {}

    pool.close_trade(closing, "110")
    second = pool.mark_to_market(at="2026-01-01T00:00:01Z")

    assert pool.get_marks("ann") == {"at": second.at, "by_currency": {}}
    assert pool.get_marks("bob")["by_currency"]["USDT"]["unrealised"] == "20.00000000"
    pool.mark_to_market(at="2026-01-01T00:00:02Z")
    assert pool.get_marks("ann")["at"] == second.at > first.at
