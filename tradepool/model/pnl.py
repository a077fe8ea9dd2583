"""Booking fills: the one fold that every figure of a trade comes from, and what it does to the trade."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition
from tradepool.model.books import BLANK, Books
from tradepool.model.kinds import Role, Status
from tradepool.model.lifecycle import (
    FINAL_STATUSES,
    LATE_STATUSES,
    check_transition,
    outcome_of,
    status_after_fill,
)
from tradepool.model.trade import Fill, Trade

__all__ = [
    "DERIVED_FIELDS",
    "book_fill",
    "fold_fills",
    "known_fill",
    "recompute",
    "refigure",
    "shrunk_to_filled",
    "with_status",
]

DERIVED_FIELDS = (*BLANK, "pnl_gross", "pnl_net", "pnl_cash_net", "roi_net", "outcome")
"""What `recompute` derives; everything else is given or decided."""

# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_ENTRY, _COMPLETED = Role.ENTRY, Status.COMPLETED


def book_fill(trade: Trade, fill: Fill) -> Trade:
    """`trade` with `fill` booked: quantities, cost, fees, PnL, status and times. The version stays.

    A fill that is already booked returns `trade` itself.

    Raises: IdempotencyConflict when its id is taken by another fill; IllegalTransition when it fills
    more than was ordered, closes more than is filled, or comes in a final status; InvalidTrade when
    its fee in the base coin is not below its amount.
    """
    if known_fill(trade, fill):
        return trade
    if trade.status in FINAL_STATUSES:
        problem = f"a {trade.status} trade takes no more fills"
        raise IllegalTransition(problem, field="fill_id", value=fill.fill_id, cure="open another trade")
    booked = fold_fills(trade, (fill,))
    check_transition(trade, status := status_after_fill(trade, booked, fill.role))
    if fill.role is _ENTRY and (trade.status in LATE_STATUSES or trade.amount_ordered is not None):
        note = f"late_fill: {fill.fill_id} of an order that was {trade.status}"
        booked = shrunk_to_filled(msgspec.structs.replace(booked, notes=(*booked.notes, note)))
    return with_status(booked, status, at=fill.at)


def known_fill(trade: Trade, fill: Fill) -> bool:
    """Whether `fill` is booked already; its time is not compared, for sources round it differently.

    Raises: IdempotencyConflict when its id is taken by another fill.
    """
    for booked in trade.fills:
        if booked.fill_id == fill.fill_id:
            if _payload(trade, booked) == _payload(trade, fill):
                return True
            raise IdempotencyConflict(
                "the trade has another fill with this id",
                field="fill_id",
                value=fill.fill_id,
                cure="send each venue fill once, unchanged",
            )
    return False


def fold_fills(trade: Trade, fills: Iterable[Fill]) -> Trade:
    """`trade` with `fills` in its books, in order; status, outcome and times are left alone.

    Raises: as `book_fill`, but for the status.
    """
    books = Books(trade)
    for fill in fills:
        books.book(fill)
    return msgspec.structs.replace(trade, **books.fields())


def refigure(trade: Trade) -> Trade:
    """`trade` with its PnL figures and outcome derived again, after funding, interest or leverage changed."""
    return _judged(fold_fills(trade, ()))


def recompute(trade: Trade) -> Trade:
    """The same trade with every derived figure folded again from its fills: an audit's oracle.

    Raises: as `fold_fills`, for fills that could never have been booked.
    """
    return _judged(
        fold_fills(msgspec.structs.replace(trade, fills=(), **(BLANK | {"fees": {}})), trade.fills)
    )


def with_status(trade: Trade, status: Status, *, at: int) -> Trade:
    """`trade` in `status` since `at` (µs), with the times and the outcome that follow from it.

    Whether the move is legal is the caller's to check.
    """
    changes: dict[str, Any] = {"status": status}
    opened_at = trade.opened_at
    if opened_at is None and trade.filled:
        opened_at = changes["opened_at"] = max(trade.created_at, at)
    if status is _COMPLETED:
        changes["outcome"] = outcome_of(trade)
        if trade.closed_at is None:
            # Exits may be told in another order than they happened in.
            happened = max((fill.at for fill in trade.fills), default=0)
            changes["closed_at"] = max(trade.created_at, opened_at or 0, at, happened)
    return msgspec.structs.replace(trade, **changes)


def shrunk_to_filled(trade: Trade) -> Trade:
    """An order whose rest will not come: its amount is what was filled, the first one is kept."""
    ordered = trade.amount_ordered or trade.amount
    return msgspec.structs.replace(trade, amount=trade.filled, amount_ordered=ordered)


def _judged(trade: Trade) -> Trade:
    if trade.status is not _COMPLETED:
        return trade
    return msgspec.structs.replace(trade, outcome=outcome_of(trade))


def _payload(trade: Trade, fill: Fill) -> tuple[object, ...]:
    coin = (fill.fee_currency or trade.settlement_currency) if fill.fee else None
    return (fill.role, fill.amount, fill.price, fill.fee, coin, fill.fee_price, fill.order_id)
