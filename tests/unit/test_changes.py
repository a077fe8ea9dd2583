"""Commands repeated, reordered and late: what a record answers."""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec
import pytest

from tests.trade_builders import (
    NOW_US,
    add_command,
    fill_command,
    fill_fields,
    new_trade,
    pnl_command,
    update_command,
)
from tradepool.errors import IdempotencyConflict, IllegalTransition, InvalidTrade, VersionMismatch
from tradepool.model.changes import APPLIED_MAX, Change, add, change
from tradepool.model.commands import AddTrade, CloseTrade, TradeCommand
from tradepool.model.ids import short_id
from tradepool.model.pnl import recompute
from tradepool.model.times import TIME_US_MAX
from tradepool.model.trade import Status, Trade, TradeOutcome


def added(**fields: object) -> Trade:
    return add(add_command(**fields), trade_id="t1", existing=None).trade


def after(trade: Trade, *commands: TradeCommand) -> Trade:
    for command in commands:
        trade = change(trade, command).trade
    return trade


def close_command(command_id: str = "close", price: object = 2100, **fields: object) -> CloseTrade:
    return CloseTrade(command_id=command_id, as_of=NOW_US, trade_id="t1", price=price, **fields)


def test_an_add_makes_version_1_and_remembers_its_command():
    trade = added()
    assert (trade.trade_id, trade.version, trade.applied) == ("t1", 1, short_id("add"))


def test_redelivered_add_changes_nothing():
    trade = added()
    assert add(add_command(), trade_id="t1", existing=trade) == Change("duplicate", trade)
    assert change(trade, add_command()) == Change("duplicate", trade)


def test_the_same_add_sent_anew_is_a_duplicate_even_after_later_changes():
    trade = after(added(), update_command("u1", stop_loss=1), close_or_fill())
    again = add(add_command("another command", as_of=NOW_US + 99), trade_id="t1", existing=trade)
    assert again == Change("duplicate", trade)


def test_what_was_read_of_a_trade_added_again_is_a_duplicate_also_when_it_has_moved_on():
    first = added()
    later = after(first, update_command("u1", stop_loss=1))
    for read in (first, later):
        again = AddTrade(command_id="again", as_of=NOW_US, trade=read.to_dict())
        assert add(again, trade_id="t1", existing=later) == Change("duplicate", later)
    ahead = AddTrade(command_id="again", as_of=NOW_US, trade=later.to_dict())
    with pytest.raises(IdempotencyConflict):
        add(ahead, trade_id="t1", existing=first)


def test_a_trade_known_to_have_ended_by_its_reported_pnl_alone_holds_nothing():
    trade = added(status="failed", pnl="-5", amount="10", price="100")
    assert (trade.status, trade.pnl, trade.open_amount) == ("completed", -5, 0)
    assert (trade.unrealised(200), trade.unrealised_net(200, "0.001")) == (0, 0)


def close_or_fill() -> TradeCommand:
    return fill_command("f1", fill_fields("a", "entry", 2, 2000))


def test_another_trade_under_a_known_id_or_key_is_a_conflict():
    trade = added(idempotency_key="k")
    other = add_command("other", idempotency_key="k", amount=3)
    with pytest.raises(IdempotencyConflict) as refusal:
        add(other, trade_id="t1", existing=trade)
    assert refusal.value.field == "trade_id"
    with pytest.raises(IdempotencyConflict) as refusal:
        add(other, trade_id="t2", existing=trade)
    assert (refusal.value.field, refusal.value.value) == ("idempotency_key", "k")


def test_the_same_idempotency_key_and_payload_returns_the_first_trade():
    trade = added(idempotency_key="k")
    again = add(add_command("again", idempotency_key="k"), trade_id="t2", existing=trade)
    assert again == Change("duplicate", trade)


def test_every_applied_change_is_one_version_and_never_turns_time_back():
    trade = added()
    changed = after(
        trade, update_command("u1", NOW_US + 5, stop_loss=1), update_command("u2", NOW_US + 2, strategy="x")
    )
    assert (changed.version, changed.updated_at) == (3, NOW_US + 5)


def test_a_redelivered_update_is_a_duplicate():
    first = update_command("u1", stop_loss=1)
    trade = after(added(), first)
    assert change(trade, first) == Change("duplicate", trade)


def test_an_old_update_delivered_again_leaves_the_newer_values():
    one = update_command("u1", NOW_US + 1, stop_loss=1, take_profit=9)
    two = update_command("u2", NOW_US + 2, stop_loss=2)
    trade = after(added(), one, two, one)
    assert (trade.stop_loss, trade.take_profit, trade.version) == (2, 9, 3)


def test_a_repeat_between_updates_of_one_moment_leaves_the_later_values():
    one, two = update_command("u1", stop_loss=1), update_command("u2", stop_loss=2)
    trade = after(added(), one, two)
    assert change(trade, one) == Change("duplicate", trade)
    assert trade.stop_loss == 2


def test_an_old_update_is_stale_even_after_its_command_is_forgotten():
    first = update_command("first", NOW_US + 1, stop_loss=1)
    trade = after(added(), first)
    for index in range(APPLIED_MAX):
        trade = after(trade, update_command(f"u{index}", NOW_US + 2 + index, stop_loss=2 + index))
    assert len(trade.applied) == APPLIED_MAX * 16
    assert short_id("first") not in trade.applied
    assert change(trade, first) == Change("stale", trade)


def test_updates_that_arrive_in_the_wrong_order_keep_the_newer_value_of_each_field():
    newer = update_command("newer", NOW_US + 9, stop_loss=2)
    older = update_command("older", NOW_US + 1, stop_loss=1, take_profit=9)
    trade = after(added(), newer, older)
    assert (trade.stop_loss, trade.take_profit) == (2, 9)
    assert trade.field_times == {"stop_loss": NOW_US + 9, "take_profit": NOW_US + 1}
    assert change(added(), older).outcome == "applied"
    assert change(after(added(), newer), update_command("o", NOW_US, stop_loss=5)).outcome == "stale"


def test_an_update_that_sets_what_is_there_is_a_duplicate():
    trade = after(added(), update_command("u1", stop_loss=1))
    assert change(trade, update_command("u2", NOW_US + 5, stop_loss="1.0")) == Change("duplicate", trade)
    assert change(trade, update_command("u3")) == Change("duplicate", trade)


def test_an_update_for_another_version_is_refused_with_both_versions():
    trade = after(added(), update_command("u1", stop_loss=1))
    with pytest.raises(VersionMismatch, match=r"version 2.*got 1"):
        change(trade, update_command("u2", stop_loss=2, expected_version=1))
    assert change(trade, update_command("u2", stop_loss=2, expected_version=2)).outcome == "applied"


def test_funding_interest_and_leverage_change_the_figures():
    trade = after(added(), close_or_fill(), close_command())
    assert (trade.pnl, trade.roi) == (200, Decimal("0.05"))
    carried = after(trade, update_command("u1", funding=5, interest="1.5", leverage=2))
    assert (carried.pnl, carried.roi) == (Decimal("203.5"), Decimal("0.10175"))
    assert carried.status is Status.COMPLETED


def test_the_order_can_be_amended_until_it_is_filled():
    trade = after(added(), fill_command("f1", fill_fields("a", "entry", 1, 2000)))
    assert after(trade, update_command("u1", amount=3, price=1990)).amount == 3
    with pytest.raises(IllegalTransition, match="amount"):
        change(trade, update_command("u2", amount=1))
    filled = after(trade, fill_command("f2", fill_fields("b", "entry", 1, 2000)))
    with pytest.raises(IllegalTransition, match="price"):
        change(filled, update_command("u3", price=5))


def test_json_fields_stay_within_16_kib_together():
    trade = added(signals={"a": "x" * 10_000})
    with pytest.raises(InvalidTrade):
        change(trade, update_command("u1", market_conditions={"a": "x" * 10_000}))
    assert change(trade, update_command("u2", signals={})).trade.signals == {}


def test_a_known_fill_is_a_duplicate_whatever_command_brings_it():
    trade = after(added(), close_or_fill())
    again = fill_command("f9", fill_fields("a", "entry", "2.0", 2000), as_of=NOW_US + 50)
    assert change(trade, again) == Change("duplicate", trade)
    with pytest.raises(IdempotencyConflict):
        change(trade, fill_command("f9", fill_fields("a", "entry", 1, 2000)))


def test_a_fill_without_an_id_is_booked_once_per_command():
    nameless = {"role": "entry", "amount": 1, "price": 2000}
    trade = after(added(), fill_command("f1", nameless), fill_command("f1", nameless))
    assert trade.filled == 1
    assert after(trade, fill_command("f2", nameless)).filled == 2


def test_closing_sells_the_rest_or_a_part():
    trade = after(added(status="filled"), close_command("c1", 2100, amount="0.5", fee=1))
    assert (trade.status, trade.pnl) == (Status.PARTIALLY_CLOSED, 49)
    done = after(trade, close_command("c2", 2200, at=NOW_US + 7))
    assert (done.status, done.outcome, done.pnl) == (Status.COMPLETED, TradeOutcome.WIN, 349)
    assert done.closed_at == NOW_US + 7
    assert change(done, close_command("c2", 2200)).outcome == "duplicate"
    with pytest.raises(IllegalTransition):
        change(done, close_command("c3", 2200))


def test_closing_sells_what_a_base_fee_left():
    bought = fill_command("f1", fill_fields("a", "entry", 1, 2000, fee="0.001", fee_currency="ETH"))
    trade = after(added(amount=1), bought, close_command(price=2100, fee=2))
    assert (trade.status, trade.closed, trade.pnl) == (Status.COMPLETED, Decimal("0.999"), Decimal("95.9"))


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        ("pending", "fill it first"),
        ("submitted", "fill it first"),
        ("completed", "it is closed; update_trade_pnl"),
        ("rejected", "add a new trade"),
        ("cancelled", "add the fill"),
        ("expired", "add the fill"),
    ],
)
def test_nothing_open_cannot_be_closed_and_the_cure_fits_the_status(status, cure):
    trade = msgspec.structs.replace(added(), status=Status(status))
    with pytest.raises(IllegalTransition) as refusal:
        change(trade, close_command())
    assert (refusal.value.field, refusal.value.value) == ("status", status)
    assert cure in refusal.value.cure
    assert (refusal.value.cure == "fill it first") == (status in ("pending", "submitted"))


@pytest.mark.parametrize(
    ("roi", "pnl", "kept"),
    [("0.1", 8, True), ("0.1", 4, True), ("0.1", -8, False), (0, 8, False), (0, 4, True)],
)
def test_another_reported_pnl_drops_a_return_of_another_sign(roi, pnl, kept):
    trade = added(status="completed", pnl=4, roi_reported=roi)
    later = after(trade, pnl_command("p1", pnl, NOW_US + 1))
    assert later.roi_reported == (Decimal(roi) if kept else None)


@pytest.mark.parametrize("method", ["avg", None, 5])
def test_lots_of_another_method_are_refused_by_name(method):
    with pytest.raises(InvalidTrade, match="fifo") as refusal:
        added(status="filled").matched_lots(method)
    assert refusal.value.field == "method"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_an_update_takes_no_number_that_is_not_finite(number):
    trade = added()
    with pytest.raises(InvalidTrade) as refusal:
        change(trade, update_command("u1", market_conditions={"a": [{"b": number}]}))
    assert refusal.value.field == "market_conditions"
    assert change(trade, update_command("u2", signals={"a": None})).trade.signals == {"a": None}


def test_a_reported_pnl_completes_a_trade_and_stands_beside_the_books():
    trade = after(added(status="filled"), pnl_command("p1", -3.5))
    assert (trade.status, trade.outcome, trade.pnl) == (Status.COMPLETED, TradeOutcome.LOSS, Decimal("-3.5"))
    assert trade.closed_at == NOW_US
    better = after(trade, pnl_command("p2", 4, NOW_US + 1))
    assert (better.pnl, better.outcome, better.closed_at) == (4, TradeOutcome.WIN, NOW_US)


def test_an_older_reported_pnl_is_stale():
    trade = after(added(status="filled"), pnl_command("p2", 4, NOW_US + 2))
    assert change(trade, pnl_command("p1", -3, NOW_US + 1)) == Change("stale", trade)
    assert change(trade, pnl_command("p3", 4, NOW_US + 3)) == Change("duplicate", trade)


def test_a_reported_close_of_an_order_not_known_to_be_filled_implies_its_fill():
    trade = after(added(), pnl_command("p1", 8))
    assert (trade.status, trade.filled, trade.pnl) == (Status.COMPLETED, 2, 8)
    part = after(added(), pnl_command("p1", 8, status="partially_closed"))
    assert (part.status, part.pnl) == (Status.PARTIALLY_CLOSED, 8)


def test_a_reported_pnl_cannot_undo_a_close_and_writes_nothing():
    trade = after(added(), pnl_command("p1", 8))
    with pytest.raises(IllegalTransition):
        change(trade, pnl_command("p2", 9, NOW_US + 1, status="partially_closed"))


def test_computed_pnl_wins_over_a_reported_one_once_an_exit_is_known():
    trade = after(added(status="filled"), close_command(price=2100, amount=1), pnl_command("p1", 77))
    assert (trade.pnl, trade.pnl_reported, trade.status) == (100, 77, Status.COMPLETED)


def test_the_old_bots_words_work_in_updates():
    assert after(new_trade(), update_command("u", status="executed")).status is Status.SUBMITTED
    assert after(new_trade(), update_command("u", status="failed")).status is Status.REJECTED
    ambiguous = after(new_trade(), update_command("u", status="successful"))
    assert (ambiguous.status, ambiguous.notes) == (Status.FILLED, ("legacy_ambiguous",))


def test_a_command_id_is_found_only_where_it_stands_whole():
    straddling = msgspec.structs.replace(added(), applied="0" * 8 + short_id("u1") + "0" * 8)
    assert change(straddling, update_command("u1", stop_loss=3)).outcome == "applied"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"funding": -1000}, TradeOutcome.LOSS),
        ({"interest": 200}, TradeOutcome.FLAT),
        ({"leverage": 3}, TradeOutcome.WIN),
    ],
)
def test_the_outcome_of_a_closed_trade_follows_its_figures(changes, outcome):
    trade = after(added(), close_or_fill(), close_command())
    assert (trade.pnl, trade.outcome) == (200, TradeOutcome.WIN)
    assert after(trade, update_command("u1", **changes)).outcome is outcome
    assert recompute(after(trade, update_command("u1", **changes))).outcome is outcome


def test_closes_delivered_again_after_their_commands_are_forgotten_are_duplicates():
    closes = [close_command(f"c{i}", amount="0.05") for i in range(39)] + [close_command("c39")]
    trade = after(added(status="filled"), *closes)
    assert trade.status is Status.COMPLETED
    assert len(trade.applied) < len(closes) * 16
    assert [change(trade, close) for close in closes] == [Change("duplicate", trade)] * len(closes)


@pytest.mark.parametrize("as_of", [10**30, TIME_US_MAX + 1, -1])
def test_a_command_of_no_possible_time_is_refused(as_of):
    trade = added()
    with pytest.raises(InvalidTrade) as refusal:
        change(trade, update_command("u1", as_of, stop_loss=1))
    assert refusal.value.field == "as_of"
    with pytest.raises(InvalidTrade) as refusal:
        add(add_command(as_of=as_of), trade_id="t2", existing=None)
    assert refusal.value.field == "as_of"
