"""Audit rules by themselves: what breaks each, what does not quite, and that a sound trade breaks none."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from tests.trade_builders import NOW_US, new_fill, new_trade
from tradepool.audit.rules.catalogue import MODULES, all_rules
from tradepool.audit.rules.file_rules import BOOK_CHECK_MAX_US, BookReport, BookRow
from tradepool.audit.rules.index_rules import summary_fold
from tradepool.audit.rules.ledger_rules import BALANCE_MAX_US, EXPIRED_MAX_US, check_ledger
from tradepool.audit.rules.registry import Level, Repair
from tradepool.audit.rules.relation_rules import duplicate_fill, duplicate_order
from tradepool.audit.rules.trade_rules import (
    AHEAD_MAX_US,
    OPEN_QUIET_US,
    PENDING_MAX_US,
    cash_identity,
    check_trade,
    reported_pnl,
)
from tradepool.audit.rules.venue_rules import Held, Told, venue_average_price, venue_quantity
from tradepool.model.ledger import Balance, Hold, Ledger
from tradepool.model.pnl import book_fill
from tradepool.model.status_moves import moved
from tradepool.model.trade import Status


def closed_trade(**fields):
    trade = book_fill(new_trade(**fields), new_fill("f1", "entry", 2, 2000, fee="4"))
    return book_fill(trade, new_fill("f2", "exit", 2, 2100, fee="4.2"))


def broken(trade, *, now_us=NOW_US, **fields):
    changed = msgspec.structs.replace(trade, **fields)
    return {finding.rule for finding in check_trade(changed, now_us=now_us)}


def test_a_sound_trade_breaks_no_rule():
    assert broken(new_trade()) == broken(closed_trade()) == set()


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"closed": Decimal(3)}, "quantities"),
        ({"filled": Decimal(-1)}, "quantities"),
        ({"status": Status.REJECTED}, "lifecycle"),
        ({"status": Status.CANCELLED}, "lifecycle"),
        ({"closed_at": NOW_US - 10**9}, "time_order"),
        ({"pnl_net": Decimal(1)}, "recomputed_figures"),
        ({"outcome": None}, "recomputed_figures"),
        ({"fees": {}}, "recomputed_figures"),
        ({"fee_unpriced": True}, "unpriced_fee"),
        ({"schema_version": 2}, "trade_schema"),
    ],
)
def test_a_broken_trade_is_found_by_its_rule(fields, rule):
    assert rule in broken(closed_trade(), **fields)


def test_fills_that_could_never_have_been_booked_are_a_finding():
    trade = closed_trade()
    assert "recomputed_figures" in broken(trade, fills=(*trade.fills, new_fill("f3", "exit", 9, 1)))


@pytest.mark.parametrize("status", [Status.PARTIALLY_FILLED, Status.FILLED, Status.PARTIALLY_CLOSED])
def test_a_status_behind_a_fill_needs_one(status):
    assert "lifecycle" in broken(new_trade(), status=status)


def test_a_reported_result_closes_a_trade_without_its_exit():
    entered = book_fill(new_trade(), new_fill("f1", "entry", 2, 2000))
    reported = msgspec.structs.replace(entered, pnl_reported=Decimal(3))
    assert broken(moved(reported, Status.COMPLETED, at=NOW_US)) == set()
    assert "lifecycle" in broken(entered, status=Status.COMPLETED)


def test_ages_count_from_the_last_word_about_a_trade():
    pending, entered = new_trade(), book_fill(new_trade(), new_fill("f1", "entry", 2, 2000))
    assert broken(pending, now_us=NOW_US + PENDING_MAX_US) == set()
    assert broken(pending, now_us=NOW_US + PENDING_MAX_US + 1) == {"stale_pending"}
    assert broken(entered, now_us=NOW_US + OPEN_QUIET_US) == set()
    assert broken(entered, now_us=NOW_US + OPEN_QUIET_US + 1) == {"open_without_update"}
    assert broken(closed_trade(), now_us=NOW_US + 2 * OPEN_QUIET_US) == set()


def test_clocks_may_differ_a_little():
    assert broken(closed_trade(), now_us=NOW_US - AHEAD_MAX_US) == set()
    assert broken(closed_trade(), now_us=NOW_US - AHEAD_MAX_US - 1) == {"clock_skew"}
    late = book_fill(new_trade(), new_fill("f1", "entry", 2, 2000, at=NOW_US + AHEAD_MAX_US + 1))
    assert broken(msgspec.structs.replace(late, opened_at=NOW_US)) == {"clock_skew"}


@pytest.mark.parametrize(
    ("entry_fee", "exit_fee", "pnl"),
    [
        ({"fee": "0.001", "fee_currency": "ETH"}, {"fee": 2}, "95.90"),
        ({"fee": 2}, {"fee": "0.01", "fee_currency": "BNB", "fee_price": 300}, None),
        ({"fee": "-0.5"}, {"fee": "-0.001", "fee_currency": "ETH"}, None),
    ],
)
def test_the_cash_flows_of_a_flat_spot_trade_come_to_its_pnl(entry_fee, exit_fee, pnl):
    entered = book_fill(new_trade(amount=1), new_fill("f1", "entry", 1, 2000, **entry_fee))
    flat = book_fill(entered, new_fill("f2", "exit", entered.open_amount, 2100, **exit_fee))

    assert flat.status is Status.COMPLETED
    assert list(cash_identity(flat)) == []
    assert pnl is None or flat.pnl == Decimal(pnl)
    assert list(cash_identity(msgspec.structs.replace(flat, pnl_net=flat.pnl_net + 1))) != []


def test_a_reported_pnl_may_be_rounded_and_no_more():
    trade = closed_trade()
    near, far = trade.pnl_net + Decimal(4), trade.pnl_net + Decimal("4.01")
    assert reported_pnl(msgspec.structs.replace(trade, pnl_reported=near)) == []
    assert len(reported_pnl(msgspec.structs.replace(trade, pnl_reported=far))) == 1


def test_an_order_may_close_one_trade_and_open_the_next():
    first = book_fill(closed_trade(), new_fill("f2", "exit", 2, 2100, fee="4.2"))
    first = msgspec.structs.replace(first, fills=(first.fills[0], _of_order(first.fills[1])))
    second = book_fill(new_trade("t2"), _of_order(new_fill("f3", "entry", 2, 2000)))
    third = book_fill(new_trade("t3"), _of_order(new_fill("f4", "entry", 2, 2000)))
    assert duplicate_order(first, second) == []
    assert [finding.subject for finding in duplicate_order(second, third)] == ["t3"]


def test_fills_of_other_venues_accounts_and_symbols_are_others():
    first, same = closed_trade(), msgspec.structs.replace(closed_trade(), trade_id="t2")
    assert len(duplicate_fill(first, same)) == 2
    for fields in ({"exchange": "x"}, {"account_id": "x"}, {"symbol": "BTC/USDT"}):
        assert duplicate_fill(first, msgspec.structs.replace(same, **fields)) == []
    twice = msgspec.structs.replace(first, fills=(first.fills[0],) * 2)
    assert len(duplicate_fill(twice, twice)) == 1


def test_every_rule_says_what_it_means_and_stands_in_a_module_of_rules():
    names = {name for module in MODULES for name in module.__all__}
    for rule in all_rules():
        assert rule.meaning.endswith(".")
        assert rule.name in names
        assert isinstance(rule.level, Level)
        assert isinstance(rule.repair, Repair)


def test_each_level_runs_what_the_one_before_it_runs():
    assert [len(level.runs) for level in Level] == [1, 2, 3]
    assert Level.DIGEST in Level.DEEP.runs


def test_counters_that_differ_from_the_fold_are_named():
    found = summary_fold("ann", {"a": 1, "b": 2}, {"a": 1, "c": 3})
    assert [f.detail.partition(":")[0] for f in found] == ["b", "c"]


def ledger_findings(**fields):
    ledger = Ledger(user_id="ann", **fields)
    return {(f.rule, str(f.severity)) for f in check_ledger(ledger, now_us=NOW_US)}


def test_a_frozen_asset_is_a_warning_and_a_wrong_reserve_is_critical():
    found = ledger_findings(assets={"USDT": Balance(free=Decimal(1), reserved=Decimal(2))})
    assert found == {("frozen_asset", "warning"), ("balance_conservation", "critical")}


def test_what_the_last_check_of_the_book_did_not_tell_is_undecided():
    row = BookRow(trade_id="t", what="cost", book="1", store="2")
    told = BookReport(differences=(row,), different=3, undecided=("u",), at=NOW_US)
    assert len(list(told.untold(NOW_US + BOOK_CHECK_MAX_US))) == 2
    assert len(list(told.untold(NOW_US + BOOK_CHECK_MAX_US + 1))) == 3
    assert list(BookReport(differences=(row,), different=1, at=NOW_US).untold(NOW_US)) == []


def test_more_spent_than_reserved_is_found():
    spent = Hold(asset="USDT", amount=Decimal(1), reserved_at=0, expires_at=0, spent=Decimal(2))
    assert ledger_findings(resolved={"k": spent}) == {("balance_conservation", "critical")}


def test_reservations_and_balances_have_some_time():
    held = Hold(asset="USDT", amount=Decimal(1), reserved_at=0, expires_at=NOW_US - EXPIRED_MAX_US)
    told = Balance(free=Decimal(1), reserved=Decimal(1), as_of=NOW_US - BALANCE_MAX_US)
    assert ledger_findings(assets={"USDT": told}, reservations={"k": held}) == set()
    older = msgspec.structs.replace(held, expires_at=held.expires_at - 1)
    assert ledger_findings(assets={"USDT": told}, reservations={"k": older}) == {
        ("expired_reservation", "warning")
    }
    told = msgspec.structs.replace(told, as_of=told.as_of - 1)
    assert ledger_findings(assets={"USDT": told}, reservations={"k": held}) == {("stale_balance", "notice")}


def test_venues_round():
    ours = Held("ann", Decimal("0.3"), Decimal(30000))
    assert venue_quantity(ours, Told(Decimal("0.300000001"))) == []
    assert len(venue_quantity(ours, Told(Decimal("-0.3")))) == 1
    assert venue_average_price(ours, Told(Decimal("0.3"), Decimal(30002))) == []
    assert len(venue_average_price(ours, Told(Decimal("0.3"), Decimal(30004)))) == 1
    assert venue_average_price(ours, Told(Decimal("0.3"))) == []


def _of_order(fill):
    return msgspec.structs.replace(fill, order_id="order")
