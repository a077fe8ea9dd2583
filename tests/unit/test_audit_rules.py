"""Each audit rule by itself: what breaks it, and that a sound trade breaks none."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from tests.trade_builders import NOW_US, new_fill, new_trade
from tradepool.audit.rules import TRADE_RULES, check_counters, check_ledger, check_trade
from tradepool.model.ledger import Balance, Ledger
from tradepool.model.pnl import book_fill
from tradepool.model.trade import Status


def closed_trade():
    trade = book_fill(new_trade(), new_fill("f1", "entry", 2, 2000, fee="4"))
    return book_fill(trade, new_fill("f2", "exit", 2, 2100, fee="4.2"))


def broken(trade, **fields):
    return {finding.rule for finding in check_trade(msgspec.structs.replace(trade, **fields))}


def test_a_sound_trade_breaks_no_rule():
    assert list(check_trade(new_trade())) == []
    assert list(check_trade(closed_trade())) == []


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"closed": Decimal(3)}, "quantities"),
        ({"filled": Decimal(-1)}, "quantities"),
        ({"status": Status.REJECTED}, "status_without_fill"),
        ({"closed_at": NOW_US - 10**9}, "time_order"),
        ({"pnl_net": Decimal(1)}, "recomputed_figures"),
        ({"outcome": None}, "recomputed_figures"),
        ({"fees": {}}, "recomputed_figures"),
        ({"fee_unpriced": True}, "unpriced_fee"),
    ],
)
def test_a_broken_trade_is_found_by_its_rule(fields, rule):
    assert rule in broken(closed_trade(), **fields)


def test_fills_that_could_never_have_been_booked_are_a_finding():
    trade = closed_trade()
    assert "recomputed_figures" in broken(trade, fills=(*trade.fills, new_fill("f3", "exit", 9, 1)))


def test_every_rule_says_what_it_means():
    for severity, rule in TRADE_RULES.values():
        assert severity
        assert rule.__doc__


def test_counters_that_differ_from_the_fold_are_named():
    found = list(check_counters("ann", {"a": 1, "b": 2}, {"a": 1, "c": 3}))
    assert [f.detail.partition(":")[0] for f in found] == ["b", "c"]


def test_a_frozen_asset_is_a_warning_and_a_wrong_reserve_is_critical():
    ledger = Ledger(user_id="ann", assets={"USDT": Balance(free=Decimal(1), reserved=Decimal(2))})
    assert {str(f.severity) for f in check_ledger(ledger)} == {"warning", "critical"}
