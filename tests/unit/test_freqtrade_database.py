"""Freqtrade's SQLite databases of all ages: trades with their orders, read only, and its own figures kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest

from tests.freqtrade_databases import FIRST, PRESENT, TRADE, WITH_ORDERS, order, write_database
from tests.import_files import MemoryPool
from tradepool.errors import Rejected, ResourceUnavailable
from tradepool.importers import import_file
from tradepool.importers.freqtrade_database import read_freqtrade_database
from tradepool.importers.rows import Defaults, RefusedRow, TradeRow
from tradepool.model import intake

BUY, SELL = order(1, "buy", 1.0, 2000.0), order(2, "sell", 1.0, 2100.0)
STILL_OPEN = {
    "is_open": 1,
    "close_rate": None,
    "close_date": None,
    "close_profit": None,
    "close_profit_abs": None,
}


def entries(path, **defaults):
    return list(read_freqtrade_database(path, Defaults(**defaults)))


def trades_of(path, **defaults):
    rows = entries(path, **defaults)
    assert all(isinstance(row, TradeRow) for row in rows), rows
    return [intake.trade_from_dict(row.trade, now_us=row.as_of or 1) for row in rows]


def test_a_trade_of_the_present_has_its_orders_as_fills(tmp_path):
    path = write_database(tmp_path / "tradesv3.sqlite", PRESENT, trades=[TRADE], orders=[BUY, SELL])
    (trade,) = trades_of(path)
    assert (trade.exchange, trade.strategy, trade.source, trade.market) == ("kraken", "S", "real", "spot")
    assert [(fill.role, fill.order_id, fill.fee) for fill in trade.fills] == [
        ("entry", "o1", 2),
        ("exit", "o2", Decimal("4.2")),
    ]
    assert (trade.pnl, trade.pnl_reported, trade.roi_reported) == tuple(
        map(Decimal, ("93.8", "93.8", "0.0468"))
    )
    assert (trade.status, trade.close_reason, trade.signals) == ("completed", "roi", {"enter_tag": "dip"})
    assert trade.created_at == 1682935200123456
    assert trade.extra["freqtrade"]["stake_amount"] == 2000.0


def test_the_same_trade_in_every_age_is_booked_alike(tmp_path):
    old = TRADE | {
        "fee": 0.001,
        "fee_close": 0.001,
        "pair": "USDT_ETH",
        "sell_reason": "roi",
        "buy_tag": "dip",
    }
    first = write_database(tmp_path / "1.sqlite", FIRST, trades=[old])
    then = write_database(
        tmp_path / "2.sqlite", WITH_ORDERS, trades=[old | {"pair": "ETH/USDT"}], orders=[BUY, SELL]
    )
    now = write_database(
        tmp_path / "3.sqlite", PRESENT, trades=[TRADE | {"fee_close": 0.001}], orders=[BUY, SELL]
    )
    books = [trade for path in (first, then, now) for trade in trades_of(path)]
    assert (
        len({(t.symbol, t.amount, t.entry_cost, t.exit_value, t.entry_fee, t.exit_fee, t.pnl) for t in books})
        == 1
    )
    # What the first age did not store is computed as freqtrade's own migration does.
    assert books[0].pnl_reported == books[0].pnl == Decimal("95.9")
    assert [(t.close_reason, t.signals) for t in books[1:]] == [("roi", {"enter_tag": "dip"})] * 2


def test_adding_to_a_position_partial_exits_and_what_is_still_open(tmp_path):
    orders = [
        BUY,
        order(2, "buy", 2.0, 1900.0),
        order(3, "sell", 1.0, 2000.0),
        order(4, "stoploss", 2.0, 1800.0, filled=0.0, ft_is_open=1, status="open", order_filled_date=None),
        order(5, "buy", 3.0, 1800.0, filled=0.5, ft_is_open=1, status="open"),
        order(6, "buy", 9.0, 1800.0, filled=0.0, status="canceled", order_filled_date=None),
    ]
    path = write_database(tmp_path / "a", PRESENT, trades=[TRADE | STILL_OPEN], orders=orders)
    (trade,) = trades_of(path)
    assert (trade.filled, trade.closed, trade.amount) == (3, 1, 6)
    assert (trade.status, trade.pnl_reported) == ("partially_closed", None)


def test_an_order_seen_half_filled_does_not_stand_in_the_way_of_what_follows(tmp_path):
    pool, open_trade = MemoryPool(), TRADE | STILL_OPEN
    half = BUY | {"filled": 0.4, "average": 1999.0, "ft_is_open": 1, "status": "open"}
    stages = [(open_trade, [half]), (open_trade, [half | {"filled": 0.7}]), (open_trade, [BUY])]
    stages += [(open_trade, [BUY, SELL | {"filled": 0.2, "ft_is_open": 1}]), (TRADE, [BUY, SELL])]
    seen = []
    for number, (row, orders) in enumerate(stages):
        path = write_database(tmp_path / str(number), PRESENT, trades=[row], orders=orders)
        assert import_file(pool, path).refused == ()
        seen.append([str(trade.status) for trade in pool.trades.values()])
    assert seen == [["submitted"], ["submitted"], ["filled"], ["filled"], ["completed"]]


def test_a_fee_in_the_bought_coin_leaves_less_to_sell(tmp_path):
    orders = [BUY | {"ft_fee_base": 0.001}, order(2, "sell", 0.999, 2100.0)]
    (trade,) = trades_of(write_database(tmp_path / "a", PRESENT, trades=[TRADE], orders=orders))
    assert (trade.status, trade.open_amount, trade.fees["ETH"]) == ("completed", 0, Decimal("0.001"))
    assert trade.pnl_gross == Decimal("97.9")


def test_float_noise_beside_a_fee_in_the_bought_coin_is_closed(tmp_path):
    orders = [BUY | {"ft_fee_base": 0.001}, order(2, "sell", 0.9990000000000001, 2100.0)]
    (trade,) = trades_of(write_database(tmp_path / "a", PRESENT, trades=[TRADE], orders=orders))
    assert (trade.status, trade.closed, trade.fee_unpriced) == ("completed", Decimal("0.999"), False)


def test_orders_of_no_trade_are_nobodys(tmp_path):
    owners = {7: None, 8: 0, 9: 5, 10: 6, 11: 9}
    others = [
        BUY | {"id": number, "ft_trade_id": owner, "order_id": f"x{number}"}
        for number, owner in owners.items()
    ]
    rows = [TRADE, TRADE | {"id": 6} | STILL_OPEN]
    path = write_database(tmp_path / "a", PRESENT, trades=rows, orders=[BUY, SELL, *others])
    assert [[fill.order_id for fill in trade.fills] for trade in trades_of(path)] == [["o1", "o2"], ["x10"]]


def test_a_short_future_settles_in_its_own_coin(tmp_path):
    future = {
        "pair": "ETH/USDT:USDT",
        "is_short": 1,
        "leverage": 3.0,
        "trading_mode": "FUTURES",
        "funding_fees": -0.5,
    }
    orders = [order(1, "sell", 1.0, 2100.0), order(2, "buy", 1.0, 2000.0)]
    path = write_database(tmp_path / "a", PRESENT, trades=[TRADE | future], orders=orders)
    (trade,) = trades_of(path)
    assert (trade.market, trade.direction, trade.leverage, trade.funding) == (
        "linear",
        "short",
        3,
        Decimal("-0.5"),
    )
    assert trade.pnl == 100 - Decimal("2.1") - 4 - Decimal("0.5")


@pytest.mark.parametrize(
    ("changed", "placed", "status"),
    [
        (STILL_OPEN, {"filled": 0.0, "ft_is_open": 1, "status": "open"}, "submitted"),
        (STILL_OPEN | {"is_open": 0}, {"filled": 0.0, "status": "canceled"}, "cancelled"),
        (STILL_OPEN | {"is_open": 0}, {"filled": 0.0, "status": "expired"}, "expired"),
    ],
)
def test_an_order_that_never_filled_is_a_trade_without_fills(tmp_path, changed, placed, status):
    orders = [BUY | {"order_filled_date": None} | placed]
    (trade,) = trades_of(write_database(tmp_path / "a", PRESENT, trades=[TRADE | changed], orders=orders))
    assert (trade.status, trade.fills, trade.price) == (status, (), 2000)


def test_orders_that_tell_less_than_the_trade_are_not_taken_for_the_whole(tmp_path):
    """The orders table began with what was open then: of this trade it has the exit only."""
    (trade,) = trades_of(write_database(tmp_path / "a", PRESENT, trades=[TRADE], orders=[SELL]))
    assert (trade.status, trade.entry_cost, trade.exit_value) == ("completed", 2000, 2100)


def test_the_first_age_waits_for_an_entry_or_for_an_exit(tmp_path):
    old = TRADE | STILL_OPEN | {"fee": 0.001, "open_order_id": "x"}
    rows = [old, old | {"id": 2, "close_rate": 2100.0}, old | {"id": 3, "open_order_id": None}]
    trades = trades_of(write_database(tmp_path / "a", FIRST, trades=rows))
    assert [trade.status for trade in trades] == ["submitted", "filled", "filled"]


def test_a_dry_run_is_paper_unless_the_caller_says_otherwise(tmp_path):
    dry = [BUY | {"order_id": "dry_run_buy_1"}, SELL]
    path = write_database(tmp_path / "a", PRESENT, trades=[TRADE], orders=dry)
    named = write_database(tmp_path / "tradesv3.dryrun.sqlite", FIRST, trades=[TRADE | {"fee": 0.001}])
    found = trades_of(path), trades_of(named), trades_of(path, source="real", user="me", account="main")
    assert [(t.source, t.user_id, t.account_id) for (t,) in found] == [
        ("paper", "freqtrade", "default"),
        ("paper", "freqtrade", "default"),
        ("real", "me", "main"),
    ]


def test_a_database_that_grew_meets_the_same_ids(tmp_path):
    before = write_database(tmp_path / "a", PRESENT, trades=[TRADE | STILL_OPEN], orders=[BUY])
    later = [TRADE | {"close_profit_abs": 1.0}, TRADE | {"id": 2, "open_date": "2023-05-01 10:30:00"}]
    after = write_database(
        tmp_path / "b",
        PRESENT,
        trades=later,
        orders=[BUY, SELL, BUY | {"id": 3, "ft_trade_id": 2, "order_id": "o3"}],
    )
    (first,), (again, other) = trades_of(before), trades_of(after)
    assert again.trade_id == first.trade_id != other.trade_id
    assert again.fills[0] == first.fills[0]


def test_a_trade_that_went_on_is_carried_on(tmp_path):
    pool = MemoryPool()
    path = tmp_path / "tradesv3.sqlite"
    import_file(pool, write_database(path, PRESENT, trades=[TRADE | STILL_OPEN], orders=[BUY]))
    path.unlink()
    write_database(path, PRESENT, trades=[TRADE], orders=[BUY, SELL])
    assert [import_file(pool, path).applied for _ in range(2)] == [1, 0]
    (trade,) = pool.trades.values()
    assert (trade.status, trade.pnl, trade.pnl_reported) == ("completed", Decimal("93.8"), Decimal("93.8"))


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": None},
        {"open_rate": "much"},
        {"open_date": None},
        {"pair": "nonsense"},
        {"amount": -1.0},
        {"pair": b"ETH/USDT"},
        {"close_profit_abs": float("inf")},
        {"strategy": b"\xff"},
    ],
)
def test_a_bad_row_is_refused_and_the_rest_imported(tmp_path, changed):
    rows = [TRADE, TRADE | {"id": 2} | changed, TRADE | {"id": 3}]
    path = write_database(tmp_path / "a", PRESENT, trades=rows, orders=[])
    refused = [n for n, row in enumerate(entries(path), 1) if is_refused(row)]
    assert refused == [2]


def test_no_rubbish_in_any_column_stops_the_others(tmp_path):
    rubbish = (None, "", "x", b"\xff", 0, -1, 2**62, 1e300, -1e-30, float("inf"))
    changes = [
        (table, {name: value})
        for table, row in enumerate((TRADE, BUY, SELL))
        for name in row
        for value in rubbish
    ]
    changes = [change for change in changes if change[1].keys().isdisjoint({"id", "ft_trade_id"})]
    trades, orders = [], []
    for number, (table, changed) in enumerate([(0, {}), *changes, (0, {})], 1):
        whole = [TRADE | {"id": number}] + [
            placed | {"id": 2 * number + n, "ft_trade_id": number, "order_id": f"{number}-{n}"}
            for n, placed in enumerate((BUY, SELL))
        ]
        whole[table] |= changed
        trades.append(whole[0])
        orders += whole[1:]
    found = entries(write_database(tmp_path / "a", PRESENT, trades=trades, orders=orders))
    assert len(found) == len(trades) > 300
    assert [is_refused(found[0]), is_refused(found[-1])] == [False, False]
    assert sum(map(is_refused, found)) > 50


def is_refused(row):
    if isinstance(row, RefusedRow):
        return True
    try:
        intake.trade_from_dict(row.trade, now_us=1)
    except Rejected:
        return True
    return False


def test_a_database_in_use_is_read_with_what_only_its_log_has(tmp_path):
    path = write_database(tmp_path / "a", PRESENT, wal=True, trades=[TRADE], orders=[BUY, SELL])
    with closing(sqlite3.connect(path)) as bot:
        bot.execute("UPDATE trades SET strategy = 'T'")
        bot.commit()
        assert path.with_name("a-wal").stat().st_size > 0
        assert trades_of(path)[0].strategy == "T"


def test_a_database_at_rest_is_left_as_it_was_found(tmp_path):
    path = write_database(tmp_path / "a b?c#d", PRESENT, wal=True, trades=[TRADE], orders=[BUY, SELL])
    before = path.read_bytes()
    assert len(trades_of(path)) == 1
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], before)


def test_a_database_that_is_written_to_meanwhile_is_not_trusted(tmp_path):
    path = write_database(tmp_path / "a", PRESENT, wal=True, trades=[TRADE], orders=[BUY, SELL])
    reading = read_freqtrade_database(path, Defaults())
    next(reading)
    with closing(sqlite3.connect(path)) as bot:
        bot.execute("UPDATE trades SET strategy = 'T'")
        bot.commit()
        with pytest.raises(ResourceUnavailable, match="import it again"):
            list(reading)


def test_a_locked_database_says_who_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("tradepool.importers.freqtrade_database.LOCK_WAIT_S", 0.01)
    path = write_database(tmp_path / "a", PRESENT, trades=[TRADE])
    with closing(sqlite3.connect(path, isolation_level=None)) as bot:
        bot.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ResourceUnavailable, match="locked by another program"):
            entries(path)


def test_what_is_no_database_of_freqtrades_is_refused_whole(tmp_path):
    other = write_database(tmp_path / "a", {"trades": "id INTEGER, symbol TEXT"})
    torn = tmp_path / "torn"
    torn.write_bytes(write_database(tmp_path / "b", PRESENT, trades=[TRADE]).read_bytes()[:5000])
    for path in (other, torn, tmp_path / "missing"):
        with pytest.raises(Rejected, match=r"tradesv3\.sqlite"):
            entries(path)
