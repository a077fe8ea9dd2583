"""Trades of other projects' tests through a real pool: added, ordered further, filled, read and summed."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.published_cases import (
    STATISTICS,
    TRADES,
    agrees,
    disagreements,
    fills_of,
    ordered_first,
    same_digits,
    terms_of,
)
from tradepool import TradePool
from tradepool.model.summary import Summary

DAY_US, START_US = 86_400_000_000, 1_700_000_000_000_000
LONGER = {name: case for name, case in TRADES.items() if len(case["fills"]) > 2}


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory) -> Iterator[TradePool]:
    with TradePool.embedded(tmp_path_factory.mktemp("published"), shard_count=2) as opened:
        yield opened


def filled_one_by_one(pool: TradePool, case: dict[str, Any]) -> list[str]:
    """What the pool's trade has against the published figures after any of the fills."""
    told = terms_of(case) | {"user_id": "stepwise", "exchange": case["id"], "amount": ordered_first(case)}
    trade_id = pool.add_trade(told).trade_id
    wrong: list[str] = []
    for fill, published in zip(fills_of(case), case["after"], strict=True):
        trade = pool.get_trade(trade_id)
        filled = trade.filled + Decimal(fill["amount"])
        if fill["role"] == "entry" and filled > trade.amount:
            pool.update_trade(trade_id, amount=filled)
        pool.add_fill(trade_id, fill)
        wrong += disagreements(pool.get_trade(trade_id), published)
    return wrong


def test_a_trade_filled_and_ordered_further_through_the_pool_has_the_published_figures(pool):
    wrong = {name: filled_one_by_one(pool, case) for name, case in LONGER.items()}
    assert {name: found for name, found in wrong.items() if found} == {}
    assert {finding.rule for finding in pool.check_trades("stepwise").findings} == {"unpriced_fee"}


def test_trades_told_at_once_and_read_back_have_the_published_figures(pool):
    receipts = pool.add_trades([terms_of(case) | {"fills": fills_of(case)} for case in TRADES.values()])
    for receipt, case in zip(receipts, TRADES.values(), strict=True):
        trade = pool.get_trade(receipt.trade_id)
        final = {name: figure for name, figure in case["after"][-1].items() if name != "status"}
        assert (case["id"], disagreements(trade, final)) == (case["id"], [])
        for name, published in case.get("marked", {}).items():
            assert same_digits(getattr(trade, name)(case["mark"]), published)


def closed_trades(case: dict[str, Any]) -> list[dict[str, Any]]:
    """One completed trade a result, told as an old bot tells it."""
    told = {"symbol": "ETH/USDT", "side": "buy", "amount": "1", "price": "1000", "status": "completed"}
    last = case.get("days", len(case["pnls"]))
    return [
        told
        | {"user_id": case["id"], "created_at": START_US, "opened_at": START_US, "pnl_reported": pnl}
        | {"closed_at": START_US + (last - left) * DAY_US, "deposit": "0" if index else case.get("balance")}
        for index, (pnl, left) in enumerate(
            zip(case["pnls"], reversed(range(len(case["pnls"]))), strict=True)
        )
    ]


def summary_disagreements(summary: Summary, case: dict[str, Any]) -> list[str]:
    series = summary.statistics
    assert series is not None
    figures = {name: figure for name, figure in case["expect"].items() if name != "share_at_max"}
    wrong = [
        f"{name}: published {published}, computed {own}"
        for name, published in figures.items()
        if not agrees(own := getattr(summary if hasattr(summary, name) else series, name), published)
    ]
    if "share_at_max" in case["expect"]:
        assert agrees(series.drawdown.by_amount.share, case["expect"]["share_at_max"])
    annualised = dict(case.get("annualised", {}))
    root = Decimal(annualised.pop("periods", 1)).sqrt()
    return wrong + [
        f"{name} · √: published {published}, computed {getattr(series, name) * root}"
        for name, published in annualised.items()
        if not agrees(getattr(series, name) * root, published)
    ]


def test_summaries_have_the_published_statistics(pool):
    pool.add_trades([trade for case in STATISTICS.values() for trade in closed_trades(case)])
    wrong = {
        name: summary_disagreements(pool.get_user_summary(name), case) for name, case in STATISTICS.items()
    }
    assert {name: found for name, found in wrong.items() if found} == {}
