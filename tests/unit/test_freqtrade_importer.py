"""Freqtrade exports: trades with their fills, and the file's own figures kept beside ours."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from decimal import Decimal

import pytest

from tests.import_files import FREQTRADE_TRADE, SHARED, MemoryPool, entries, with_shared_data, write_export
from tradepool.errors import Rejected
from tradepool.importers import import_file
from tradepool.model import intake
from tradepool.model.summary import summarise


def test_a_closed_trade_has_its_fills_fees_and_the_files_own_figures(tmp_path):
    (row,) = entries(write_export(tmp_path, FREQTRADE_TRADE))
    trade = intake.trade_from_dict(row.trade, now_us=1)
    assert (trade.user_id, trade.source, trade.strategy, trade.market) == (
        "freqtrade",
        "backtest",
        "S",
        "spot",
    )
    assert trade.fees == {"BTC": Decimal("0.00037")}
    assert (trade.pnl_gross, trade.pnl, trade.pnl_reported) == tuple(
        map(Decimal, ("0.02", "0.01963", "0.02"))
    )
    assert (trade.status, trade.outcome, trade.close_reason) == ("completed", "win", "roi")
    assert (trade.opened_at, trade.closed_at) == (1515568500000000, 1515568800000000)


def test_a_short_or_leveraged_trade_is_no_spot_trade(tmp_path):
    short = FREQTRADE_TRADE | {"is_short": True, "leverage": 3.0, "profit_abs": -0.02}
    futures = short | {"pair": "ETH/USDT:USDT", "funding_fees": -0.5, "liquidation_price": 0.07}
    rows = entries(write_export(tmp_path, short, futures))
    first, second = (intake.trade_from_dict(row.trade, now_us=1) for row in rows)
    assert (first.market, first.direction, first.leverage) == ("margin", "short", 3)
    assert (second.market, second.funding, second.liquidation_price) == (
        "linear",
        Decimal("-0.5"),
        Decimal("0.07"),
    )


def test_an_open_trade_has_its_entry_only(tmp_path):
    still_open = FREQTRADE_TRADE | {
        "is_open": True,
        "close_rate": None,
        "close_timestamp": None,
        "profit_abs": 1.0,
    }
    (row,) = entries(write_export(tmp_path, still_open))
    trade = intake.trade_from_dict(row.trade, now_us=1)
    assert (trade.status, trade.pnl_reported, trade.open_amount) == ("filled", None, 2)


def test_orders_become_fills_and_float_noise_in_their_sum_is_closed(tmp_path):
    def order(amount, price, at, *, entry=False):
        return {"amount": amount, "safe_price": price, "order_filled_timestamp": at, "ft_is_entry": entry}

    orders = [
        order(0.1, 0.05, 1515568500000, entry=True),
        order(0.2, 0.04, 1515568600000, entry=True),
        order(0.1, 0.06, 1515568700000),
        order(0.20000000000000004, 0.07, 1515568800000),
        order(9, 0.01, None),
    ]
    (row,) = entries(write_export(tmp_path, FREQTRADE_TRADE | {"orders": orders}))
    trade = intake.trade_from_dict(row.trade, now_us=1)
    assert [fill.role for fill in trade.fills] == ["entry", "entry", "exit", "exit"]
    assert (trade.status, trade.amount, trade.open_amount) == ("completed", Decimal("0.3"), 0)


def test_a_bad_trade_is_refused_and_the_rest_imported(tmp_path):
    bad = [
        {"amount": None},
        {"open_rate": "x"},
        {"open_timestamp": None},
        {"pair": "nonsense"},
        {"amount": -1},
    ]
    path = write_export(tmp_path, FREQTRADE_TRADE, *(FREQTRADE_TRADE | change for change in bad), 7)
    report = import_file(MemoryPool(), path)
    assert (report.read, report.applied) == (7, 1)
    assert sorted(refusal.position for refusal in report.refused) == [f"S trade {n}" for n in range(2, 8)]
    assert [name for name, _ in sorted(report.refused)] == [f"S trade {n}" for n in range(2, 8)]


def test_no_rubbish_in_any_field_stops_the_others(tmp_path):
    order = {"amount": 2.0, "filled": 2.0, "safe_price": 0.05, "order_filled_timestamp": 1515568500000}
    whole = FREQTRADE_TRADE | {"orders": [order | {"ft_is_entry": True}, order | {"ft_is_entry": False}]}
    bad = [FREQTRADE_TRADE | {name: value} for name in FREQTRADE_TRADE for value in RUBBISH]
    bad += [whole | {"orders": [order | {name: value}]} for name in order for value in RUBBISH]
    bad += [
        FREQTRADE_TRADE | {name: value}
        for name in ("exchange", "status", "trading_mode")
        for value in RUBBISH
    ]
    path = write_export(tmp_path, FREQTRADE_TRADE, *bad, whole)
    report = import_file(MemoryPool(), path)
    assert report.read == len(bad) + 2
    assert "S trade 1" not in dict(report.refused)
    assert f"S trade {report.read}" not in dict(report.refused)


RUBBISH = (
    None,
    True,
    "",
    "x",
    5,
    -1e-30,
    1e300,
    float("nan"),
    float("inf"),
    [],
    [5],
    {},
    {"a": [None]},
    "\ud800",
    10**400,
)


@pytest.mark.parametrize("balance", [*RUBBISH, 0, -1])
def test_a_rubbish_balance_is_no_deposit(tmp_path, balance):
    path = write_export(tmp_path, FREQTRADE_TRADE)
    document = json.loads(path.read_text())
    document["strategy"]["S"]["starting_balance"] = balance
    path.write_text(json.dumps(document))
    (row,) = entries(path)
    assert isinstance(row.trade.get("deposit", ""), str)


def test_runs_strategies_and_users_do_not_share_ids(tmp_path):
    one = entries(write_export(tmp_path, FREQTRADE_TRADE, FREQTRADE_TRADE))
    other_run = entries(write_export(tmp_path, FREQTRADE_TRADE, run_id="two"))
    other_user = entries(write_export(tmp_path, FREQTRADE_TRADE), user="me")
    assert len({row.trade["trade_id"] for row in (*one, *other_run, *other_user)}) == 4


def test_a_zip_as_freqtrade_writes_it_is_unpacked(tmp_path):
    export = write_export(tmp_path, FREQTRADE_TRADE)
    with zipfile.ZipFile(tmp_path / "backtest-result-1.zip", "w") as archive:
        archive.writestr("backtest-result-1_config.json", "{}")
        archive.writestr("backtest-result-1_S.json", "{}")
        archive.write(export, "backtest-result-1.json")
    assert [r.trade for r in entries(tmp_path / "backtest-result-1.zip")] == [
        r.trade for r in entries(export)
    ]


def test_a_zip_that_is_encrypted_is_refused_in_one_line(tmp_path):
    path = tmp_path / "backtest-result-1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("backtest-result-1.json", "{}")
    content = bytearray(path.read_bytes())
    for flags in (6, content.index(b"PK\x01\x02") + 8):
        content[flags] |= 1
    path.write_bytes(content)
    with pytest.raises(Rejected, match="unpack it"):
        entries(path)


@with_shared_data
def test_the_export_keeps_its_own_totals():
    rows = entries(SHARED / "freqtrade/backtest-result.json")
    trades = [intake.trade_from_dict(row.trade, now_us=1) for row in rows]
    profits = [trade.pnl_reported for trade in trades]
    gains, losses = sum(p for p in profits if p > 0), -sum(p for p in profits if p < 0)
    assert float(gains - losses) == pytest.approx(0.0010419029856968845, rel=1e-15)
    assert float(gains / losses) == pytest.approx(2.4223288739520954, rel=1e-15)
    assert Counter(trade.outcome for trade in trades) == {"win": 48, "loss": 9, "flat": 122}
    reported = summarise(trades, user_id="freqtrade").reported
    assert (reported.wins, reported.losses, reported.draws) == (48, 9, 122)
    assert (reported.pnl, reported.trade_count) == (gains - losses, 179)
    assert float(reported.pnl) == pytest.approx(0.001041902985696885, rel=1e-15)
    assert float(reported.profit_factor or 0) == pytest.approx(2.4223288739520962, rel=1e-15)
