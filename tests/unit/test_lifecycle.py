"""The lifecycle as a caller meets it: every move of the table, and what fills and cancels do."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from tests.trade_builders import (
    NOW_US,
    fill_command,
    fill_fields,
    new_fill,
    new_trade,
    pnl_command,
    update_command,
)
from tradepool.errors import IdempotencyConflict, IllegalTransition, InvalidTrade
from tradepool.model.changes import change
from tradepool.model.intake import trade_from_dict
from tradepool.model.lifecycle import FINAL_STATUSES, TRANSITIONS, check_transition
from tradepool.model.pnl import book_fill, recompute
from tradepool.model.status_moves import moved
from tradepool.model.trade import OPEN_STATUSES, Status, TradeOutcome

LEGAL = {
    "pending": "submitted rejected cancelled expired partially_filled filled",
    "submitted": "partially_filled filled cancelled expired rejected",
    "partially_filled": "filled cancelled partially_closed completed",
    "filled": "partially_closed completed",
    "partially_closed": "partially_closed completed",
    "cancelled": "filled",
    "expired": "filled",
    "completed": "",
    "rejected": "",
}
MOVES = list(itertools.product(Status, Status))


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_exactly_the_moves_of_the_design_are_legal(old, new):
    trade = msgspec.structs.replace(new_trade(), status=old)
    if new is old or new in LEGAL[old].split():
        check_transition(trade, new)
        return
    with pytest.raises(IllegalTransition) as refusal:
        check_transition(trade, new)
    assert refusal.value.field == "status"
    assert old in str(refusal.value)
    assert new in str(refusal.value)


def test_final_statuses_lead_nowhere_and_every_status_is_in_the_table():
    assert {Status.COMPLETED, Status.REJECTED} == FINAL_STATUSES
    assert TRANSITIONS.keys() == set(Status)
    assert OPEN_STATUSES.isdisjoint(FINAL_STATUSES)
    assert len({status.code for status in Status}) == len(Status)


def test_fills_carry_a_trade_from_pending_to_completed():
    trade = new_trade()
    seen = [trade.status]
    for fill in (
        new_fill("a", "entry", "0.5", "2000"),
        new_fill("b", "entry", "1.5", "2010"),
        new_fill("c", "exit", "1", "2100"),
        new_fill("d", "exit", "1", "1900", at=NOW_US + 5),
    ):
        trade = book_fill(trade, fill)
        seen.append(trade.status)
    assert seen == ["pending", "partially_filled", "filled", "partially_closed", "completed"]
    assert trade.outcome is TradeOutcome.LOSS
    assert (trade.opened_at, trade.closed_at) == (NOW_US, NOW_US + 5)


def test_a_partly_filled_trade_can_close_and_complete():
    half = book_fill(new_trade(), new_fill("a", "entry", "1", "2000"))
    assert book_fill(half, new_fill("b", "exit", "0.5", "2000")).status is Status.PARTIALLY_CLOSED
    done = book_fill(half, new_fill("b", "exit", "1", "2000"))
    assert (done.status, done.outcome) == (Status.COMPLETED, TradeOutcome.FLAT)


def test_a_partly_closed_trade_can_still_fill():
    trade = new_trade()
    for fill in (
        new_fill("a", "entry", "1", "2000"),
        new_fill("b", "exit", "0.5", "2100"),
        new_fill("c", "entry", "1", "2000"),
    ):
        trade = book_fill(trade, fill)
    assert trade.status is Status.PARTIALLY_CLOSED
    assert trade.filled == trade.amount


@pytest.mark.parametrize(
    ("fill", "before"),
    [
        (new_fill("x", "entry", "2.1", "2000"), ()),
        (new_fill("x", "entry", "0.1", "2000"), (new_fill("a", "entry", "2", "2000"),)),
        (new_fill("x", "exit", "0.1", "2000"), ()),
        (new_fill("x", "exit", "1.1", "2000"), (new_fill("a", "entry", "1", "2000"),)),
    ],
)
def test_a_fill_beyond_the_amount_or_an_exit_beyond_the_fills_is_refused(fill, before):
    trade = new_trade()
    for earlier in before:
        trade = book_fill(trade, earlier)
    with pytest.raises(IllegalTransition) as refusal:
        book_fill(trade, fill)
    assert refusal.value.field == "amount"


def test_a_final_trade_takes_no_fill():
    rejected = moved(new_trade(), Status.REJECTED, at=NOW_US)
    completed = new_trade(status="completed", pnl="5")
    for trade, role in ((rejected, "entry"), (completed, "exit"), (completed, "entry")):
        with pytest.raises(IllegalTransition):
            book_fill(trade, new_fill("x", role, "2", "2000"))


def test_the_same_fill_again_changes_nothing_and_another_one_under_its_id_is_a_conflict():
    fill = new_fill("a", "entry", "1", "2000", fee="1")
    trade = book_fill(new_trade(), fill)
    assert book_fill(trade, fill) is trade
    assert book_fill(trade, new_fill("a", "entry", "1.0", "2000", fee="1", at=NOW_US + 1)) is trade
    assert book_fill(trade, new_fill("a", "entry", "1", "2000", fee="1", fee_currency="USDT")) is trade
    for other in (
        new_fill("a", "entry", "1", "2001", fee="1"),
        new_fill("a", "exit", "1", "2000", fee="1"),
        new_fill("a", "entry", "1", "2000", fee="1", fee_currency="BNB"),
    ):
        with pytest.raises(IdempotencyConflict):
            book_fill(trade, other)


@pytest.mark.parametrize("ended", [Status.CANCELLED, Status.EXPIRED])
def test_a_late_fill_reopens_a_cancelled_or_expired_trade_and_leaves_a_note(ended):
    trade = moved(new_trade(), ended, at=NOW_US)
    late = book_fill(trade, new_fill("late", "entry", "0.5", "2000"))
    assert late.status is Status.FILLED
    assert (late.amount, late.amount_ordered) == (late.filled, trade.amount)
    assert "late" in late.notes[0]
    later = book_fill(late, new_fill("later", "entry", "1.5", "2000"))
    assert (later.status, later.filled, later.amount) == (Status.FILLED, trade.amount, trade.amount)
    with pytest.raises(IllegalTransition):
        book_fill(later, new_fill("too much", "entry", "0.1", "2000"))
    with pytest.raises(IllegalTransition):
        moved(trade, Status.FILLED, at=NOW_US)


def test_cancelling_the_rest_of_a_partly_filled_order_leaves_it_filled_at_the_smaller_amount():
    half = book_fill(new_trade(), new_fill("a", "entry", "0.5", "2000"))
    cancelled = moved(half, Status.CANCELLED, at=NOW_US)
    assert cancelled.status is Status.FILLED
    assert cancelled.amount == cancelled.filled == half.filled
    assert moved(cancelled, Status.CANCELLED, at=NOW_US) is cancelled


def test_a_further_order_adds_to_an_open_position_and_its_rest_can_be_taken_back():
    trade = new_trade(status="filled")
    trade = change(trade, update_command("u1", amount=5, price=1900)).trade
    assert (trade.status, trade.amount, trade.filled, trade.price) == ("filled", 5, 2, 1900)
    trade = change(trade, fill_command("f1", fill_fields("b", "entry", 1, 1850))).trade
    assert (trade.status, trade.filled, trade.average_entry) == ("filled", 3, 1950)
    trade = change(trade, update_command("u2", NOW_US + 1, status="cancelled")).trade
    assert (trade.status, trade.amount, trade.amount_ordered) == ("filled", 3, 5)
    again = update_command("u3", NOW_US + 2, status="cancelled")
    assert change(trade, again).outcome == "duplicate"
    trade = change(trade, update_command("u4", NOW_US + 3, amount=4)).trade
    trade = change(trade, fill_command("f2", fill_fields("c", "entry", 1, 1800))).trade
    assert (trade.status, trade.amount, trade.amount_ordered, trade.notes) == ("filled", 4, None, ())
    assert recompute(trade) == trade


def test_a_further_order_after_a_partial_exit_leaves_the_status_until_nothing_is_open():
    trade = book_fill(new_trade(status="filled"), new_fill("x", "exit", 1, 2100))
    trade = change(trade, update_command("u1", amount=4)).trade
    trade = change(trade, fill_command("f1", fill_fields("b", "entry", 1, 1900))).trade
    assert (trade.status, trade.open_amount, trade.open_cost) == ("partially_closed", 2, 3900)
    back = change(trade, update_command("u2", NOW_US + 1, amount=3)).trade
    assert (back.status, back.amount, back.amount_ordered) == ("partially_closed", 3, None)
    cancelled = change(trade, update_command("u2", NOW_US + 1, status="cancelled")).trade
    assert (cancelled.status, cancelled.amount, cancelled.amount_ordered) == ("partially_closed", 3, 4)
    late = change(cancelled, fill_command("f2", fill_fields("c", "entry", 1, 1900))).trade
    assert (late.status, late.amount, len(late.notes)) == ("partially_closed", 4, 1)
    done = book_fill(trade, new_fill("y", "exit", 2, 2000))
    assert (done.status, done.pnl) == ("completed", 200)


def test_a_further_order_is_refused_below_what_is_filled_and_after_the_end():
    filled = new_trade(status="filled")
    for changes in ({"amount": 1}, {"price": 1900}, {"status": "cancelled"}):
        with pytest.raises(IllegalTransition) as refusal:
            change(filled, update_command("u1", **changes))
        assert refusal.value.field in changes
    ended = new_trade(status="completed", exit_price=2100)
    for trade in (ended, *(moved(new_trade(), Status(word), at=NOW_US) for word in ("rejected", "expired"))):
        for changes in ({"amount": 5}, {"price": 1900}):
            with pytest.raises(IllegalTransition, match="order of a"):
                change(trade, update_command("u1", **changes))


def test_a_filled_trade_with_a_further_order_is_read_back_as_it_was_but_no_bot_can_tell_it():
    ordered = change(new_trade(status="filled"), update_command("u1", amount=5)).trade
    for record in (ordered, ordered.to_dict()):
        again = trade_from_dict(record, now_us=NOW_US)
        assert (again.status, again.amount, again.filled) == ("filled", 5, 2)
    with pytest.raises(InvalidTrade, match="partially_filled"):
        new_trade(amount=5, status="filled", fills=[fill_fields("a", "entry", 2, 2000)])


def test_becoming_filled_books_the_rest_of_the_order_at_its_price():
    trade = moved(new_trade(), Status.FILLED, at=NOW_US + 9)
    assert (trade.filled, trade.open_cost, trade.opened_at) == (2, 4000, NOW_US + 9)
    half = book_fill(new_trade(), new_fill("a", "entry", "0.5", "1000"))
    assert moved(half, Status.FILLED, at=NOW_US).entry_cost == 3500
    with pytest.raises(IllegalTransition):
        moved(new_trade(price=None), Status.FILLED, at=NOW_US)


@pytest.mark.parametrize("status", [Status.PARTIALLY_CLOSED, Status.COMPLETED])
def test_a_close_without_any_evidence_is_refused(status):
    with pytest.raises(IllegalTransition):
        moved(new_trade(status="filled"), status, at=NOW_US)


def test_a_trade_with_an_open_part_is_completed_only_by_a_fill_or_a_report():
    trade = new_trade(amount=1, status="filled")
    trade = change(trade, fill_command("f1", fill_fields("a", "exit", "0.5", "2100"))).trade
    with pytest.raises(IllegalTransition, match=r"0\.5 is still open") as refusal:
        change(trade, update_command("u1", status="completed"))
    assert refusal.value.field == "status"
    assert "close_trade" in refusal.value.cure
    assert "update_trade_pnl" in refusal.value.cure
    assert change(trade, pnl_command("p1", 70)).trade.status is Status.COMPLETED
    rest = fill_command("f2", fill_fields("b", "exit", "0.5", "2100"))
    assert change(trade, rest).trade.status is Status.COMPLETED


def test_partly_filled_is_reached_by_a_fill_only():
    with pytest.raises(IllegalTransition):
        moved(new_trade(), Status.PARTIALLY_FILLED, at=NOW_US)


def test_the_same_state_again_is_a_no_op():
    trade = change(new_trade(), update_command("u1", status="submitted")).trade
    again = change(trade, update_command("u2", status="submitted"))
    assert again.outcome == "duplicate"
    assert again.trade is trade


def test_times_stay_in_order_when_a_venue_tells_an_early_fill():
    trade = new_trade(created_at=NOW_US)
    early = fill_command("f1", fill_fields("a", "entry", "2", "2000", at=NOW_US - 1000))
    trade = change(trade, early).trade
    trade = change(trade, fill_command("f2", fill_fields("b", "exit", "2", "2000", at=NOW_US - 500))).trade
    assert trade.created_at <= trade.opened_at <= trade.closed_at
    assert trade.fills[0].at == NOW_US - 1000
