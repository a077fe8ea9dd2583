"""Imports into a real pool: what a file says is booked once, however often and in however many pieces."""

from __future__ import annotations

import json

import pytest

from tests.loose_trades import buy, entry
from tradepool import TradePool
from tradepool.importers import import_file

SWAP = "BTC/USDT:USDT"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with TradePool.embedded(tmp_path_factory.mktemp("importing") / "pool", shard_count=4) as opened:
        yield opened


def fill(number, side, amount, price, symbol=SWAP):
    fee = {"cost": 1, "currency": "USDT"}
    at = 1_700_000_000_000 + number * 1000
    facts = {"symbol": symbol, "side": side, "amount": amount, "price": price, "cost": amount * price}
    return {"id": str(number), "order": f"o{number}", "timestamp": at, "fee": fee, "fees": [fee], **facts}


@pytest.fixture
def listed(tmp_path):
    def write(*rows):
        path = tmp_path / "trades.json"
        path.write_text(json.dumps(rows))
        return path

    return write


def test_a_history_that_grows_ends_in_the_same_books(pool, listed):
    rows = [
        fill(n, side, amount, 100 + n)
        for n, (side, amount) in enumerate(
            [("buy", 1), ("sell", 0.5), ("buy", 2), ("sell", 4), ("sell", 1), ("buy", 2.5), ("buy", 1)]
        )
    ]
    for end in (1, 3, 4, 4, 7):
        assert import_file(pool, listed(*rows[:end]), user="grows", exchange="x").refused == ()
    import_file(pool, listed(*rows), user="whole", exchange="x")

    def books(user):
        trades = pool.get_trades_by_user(user).trades
        return [(t.side, t.status, t.filled, t.pnl, t.average_entry, t.fees, t.closed_at) for t in trades]

    assert books("grows") == books("whole")
    assert [status for _, status, *_ in books("grows")] == ["filled", "completed", "completed"]
    assert [pnl for _, _, _, pnl, *_ in books("grows")] == [0, -6, 0]
    assert pool.check_trades("grows").ok


def test_a_page_after_the_other_carries_the_position_on(pool, listed):
    import_file(pool, listed(fill(1, "buy", 1, 100), fill(2, "buy", 1, 110)), user="pages")
    report = import_file(pool, listed(fill(3, "sell", 3, 120), fill(4, "buy", 1, 90)), user="pages")
    assert (report.read, report.applied, report.merged, report.refused) == (2, 1, 1, ())
    short, long = pool.get_trades_by_user("pages").trades
    assert (long.status, long.pnl_gross) == ("completed", 30)
    assert (short.direction, short.pnl_gross) == ("short", 30)


def test_a_fill_that_a_bot_has_booked_is_not_booked_again(pool, listed):
    own = pool.add_trade(buy(user_id="bot", symbol=SWAP, exchange="x", amount="1")).trade_id
    pool.add_fill(own, entry("1", amount="1", price="100"))
    report = import_file(pool, listed(fill(1, "buy", 1, 100)), user="bot", exchange="x")
    assert (report.applied, report.duplicate) == (0, 1)
    assert len(pool.get_trades_by_user("bot").trades) == 1
