"""Figures that other systems publish for the same arithmetic, to the digits they give."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.published_cases import same_digits
from tests.trade_builders import NOW_US, fill_fields, new_fill
from tradepool.model.intake import trade_from_dict
from tradepool.model.money import plain
from tradepool.model.pnl import book_fill, recompute, refigure
from tradepool.model.trade import Role, Trade

CASES_FILE = Path(__file__).parents[2] / "../shared/cases/pnl.json"
CASES: dict[str, dict[str, Any]] = (
    {case["id"]: case for case in json.loads(CASES_FILE.read_text())} if CASES_FILE.exists() else {}
)
# An order list that turns a position around is split into trades by an importer, not by a fill.
SPLIT_ELSEWHERE = {"flip-splits"}

pytestmark = pytest.mark.skipif(not CASES, reason="the published cases are not here")


def fee_of(case: dict[str, Any], fill: list[str]) -> str:
    role, _, amount, price = fill
    rate = case.get("fee_rate") or case[f"fee_rate_{role}"]
    quantity, at = Decimal(amount), Decimal(price)
    worth = quantity / at if case["market"] == "inverse" else quantity * at
    return plain(round(worth * Decimal(rate), 18))


def blank(case: dict[str, Any], fills: list[list[str]]) -> Trade:
    entered = sum(Decimal(fill[2]) for fill in fills if fill[0] == "entry")
    base = {"user_id": "ann", "symbol": "ETH/USDT", "side": case.get("side", "buy"), "amount": entered}
    terms = {name: case[name] for name in ("market", "leverage", "contract_size", "funding") if name in case}
    return trade_from_dict(base | terms, now_us=NOW_US, trade_id=case["id"])


def versions(case: dict[str, Any]) -> list[Trade]:
    """The trade after each fill."""
    trade, seen = blank(case, case["fills"]), []
    for index, fill in enumerate(case["fills"]):
        role, _, amount, price = fill
        trade = book_fill(trade, new_fill(f"{index}", role, amount, price, fee=fee_of(case, fill)))
        assert recompute(trade) == trade
        seen.append(trade)
    return seen


def owing_interest(trade: Trade, case: dict[str, Any]) -> Trade:
    """The record keeps interest in the settlement currency: the owed coins at what they cost to buy back."""
    last = trade.fills[-1]
    bought_back = Decimal(case["interest_base"]) * last.price * (1 + Decimal(case["fee_rate"]))
    return refigure(msgspec.structs.replace(trade, interest=bought_back))


FINAL = [name for name, case in CASES.items() if "pnl" in case and "fills" in case]


@pytest.mark.parametrize("name", FINAL)
def test_a_closed_trades_pnl_and_roi_are_as_published(name):
    case = CASES[name]
    trade = versions(case)[-1]
    if "interest_base" in case:
        trade = owing_interest(trade, case)
    assert same_digits(trade.pnl, case["pnl"])
    assert same_digits(trade.roi, case["roi"])
    assert trade.pnl == trade.pnl_cash
    assert not trade.open_amount
    assert not trade.open_cost


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "pnl_after_exits" in case])
def test_pnl_after_each_exit_is_as_published(name):
    case = CASES[name]
    exits = [trade for trade in versions(case) if trade.fills[-1].role is Role.EXIT]
    for trade, published in zip(exits, case["pnl_after_exits"], strict=True):
        assert same_digits(trade.pnl, published)
    assert same_digits(exits[-1].roi, case["roi"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "pnl_after" in case])
def test_cash_pnl_after_each_fill_is_as_published(name):
    case = CASES[name]
    seen = versions(case)
    for trade, published in zip(seen, case["pnl_after"], strict=True):
        assert not published or same_digits(trade.pnl_cash, published)
    assert same_digits(seen[-1].average_entry, case["average_entry"])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "mark" in case])
def test_a_marked_trade_is_worth_what_is_published(name):
    case = CASES[name]
    trade = versions(case)[-1]
    assert same_digits(trade.unrealised(case["mark"]), case["unrealised_gross"])
    if "entry_fee" in case:
        assert same_digits(trade.entry_fee, case["entry_fee"])
    if "realised" in case:
        assert same_digits(trade.pnl_cash, case["realised"])


def with_fee_coins(case: dict[str, Any]) -> list[Trade]:
    fills = case["fills_with_fee"]
    trade, seen = blank(case, [fill[:4] for fill in fills]), []
    coins = {"base": trade.base_currency, "quote": trade.quote_currency}
    for index, (role, _, amount, price, fee, coin) in enumerate(fills):
        trade = book_fill(trade, new_fill(f"{index}", role, amount, price, fee=fee, fee_currency=coins[coin]))
        seen.append(trade)
    return seen


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "held_after" in case])
def test_a_base_fee_lowers_what_is_held(name):
    case = CASES[name]
    held = [trade.open_amount for trade in with_fee_coins(case)]
    assert held == [Decimal(published) for published in case["held_after"]]


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "fills_with_fee" in case and "pnl" in case]
)
def test_a_base_fee_keeps_its_cost(name):
    case = CASES[name]
    trade = with_fee_coins(case)[-1]
    assert trade.pnl == Decimal(case["pnl"])
    assert trade.status == "completed"
    assert not trade.open_amount


def test_every_case_is_tried():
    tried = {
        name
        for name, case in CASES.items()
        if {"pnl", "pnl_after", "pnl_after_exits", "mark", "held_after"} & case.keys()
    }
    assert tried | SPLIT_ELSEWHERE == CASES.keys()


def test_the_fold_agrees_with_itself_when_fills_come_all_at_once():
    for name in FINAL:
        case = CASES[name]
        fills = [
            fill_fields(f"{index}", *[fill[0], fill[2], fill[3]], fee=fee_of(case, fill))
            for index, fill in enumerate(case["fills"])
        ]
        one_by_one = versions(case)[-1]
        base = blank(case, case["fills"])
        at_once = trade_from_dict(
            base.to_dict() | {"fills": fills, "trade_id": name}, now_us=NOW_US, trade_id=name
        )
        assert at_once.pnl == one_by_one.pnl
        assert at_once.status == one_by_one.status


def test_fills_told_at_once_of_one_moment_are_booked_in_the_order_they_are_told():
    case = CASES["linear-cash"]
    fills = [
        fill_fields(f"{index}", *[fill[0], fill[2], fill[3]], fee=fee_of(case, fill), at=NOW_US)
        for index, fill in enumerate(case["fills"])
    ]
    told = {"user_id": "ann", "symbol": "ETH/USDT", "side": "buy", "market": case["market"], "fills": fills}
    at_once, one_by_one = trade_from_dict(told, now_us=NOW_US, trade_id="told"), versions(case)[-1]
    assert at_once.pnl_cash == one_by_one.pnl_cash
    assert at_once.average_entry == one_by_one.average_entry
