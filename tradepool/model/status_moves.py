"""Moves of a trade's status that a caller asks for, with what they imply for the books."""

from __future__ import annotations

import msgspec

from tradepool.errors import IllegalTransition
from tradepool.model.kinds import Role, Status
from tradepool.model.lifecycle import LATE_STATUSES, check_transition, outcome_of
from tradepool.model.money import CONTEXT, canonical, plain
from tradepool.model.pnl import book_fill, shrunk_to_filled, with_status
from tradepool.model.trade import Fill, Trade

__all__ = ["ENTERED_STATUSES", "moved"]

ENTERED_STATUSES = frozenset({Status.FILLED, Status.PARTIALLY_CLOSED})
"""An open position whose first order is done; a further order may add to it."""

_UNFILLED = frozenset({Status.PENDING, Status.SUBMITTED})
_CLOSED = frozenset({Status.PARTIALLY_CLOSED, Status.COMPLETED})


def moved(trade: Trade, status: Status, *, at: int) -> Trade:
    """`trade` in `status` since `at` (µs); `trade` itself when it is there already.

    Becoming filled books the rest of the order at the trade's price; a reported close of an order not
    known to be filled implies that entry; completed needs nothing left open, or a reported PnL;
    cancelling the rest of a partly filled order leaves it filled at the smaller amount, and that of a
    further order leaves the position as it stands.

    Raises: IllegalTransition for a move that the table lacks, or that lacks its evidence.
    """
    if status is trade.status:
        return _same(trade)
    if status is Status.CANCELLED and trade.status in ENTERED_STATUSES:
        return _without_rest(trade)
    if status in _CLOSED:
        return _closed(trade, status, at)
    check_transition(trade, status)
    if status is Status.PARTIALLY_FILLED or (status is Status.FILLED and trade.status in LATE_STATUSES):
        problem = f"only a fill makes a {trade.status} trade {status}"
        raise IllegalTransition(problem, field="status", value=status, cure="add the fill")
    if status is Status.FILLED:
        return _filled(trade, at)
    if status is Status.CANCELLED and trade.filled:
        return with_status(shrunk_to_filled(trade), Status.FILLED, at=at)
    return with_status(trade, status, at=at)


def _same(trade: Trade) -> Trade:
    """A new reported PnL may turn the outcome of a trade that is completed already."""
    if trade.status is not Status.COMPLETED or trade.outcome is outcome_of(trade):
        return trade
    return msgspec.structs.replace(trade, outcome=outcome_of(trade))


def _without_rest(trade: Trade) -> Trade:
    if trade.filled < trade.amount:
        return shrunk_to_filled(trade)
    if trade.amount_ordered is None:
        check_transition(trade, Status.CANCELLED)
    return trade


def _closed(trade: Trade, status: Status, at: int) -> Trade:
    if not trade.closed and trade.pnl_reported is None:
        raise IllegalTransition(
            f"no exit is known, so it cannot be {status}",
            field="status",
            value=status,
            cure="add the exit fill, close_trade, or update_trade_pnl",
        )
    filled = _filled(trade, at) if trade.status in _UNFILLED else trade
    check_transition(filled, status)
    if status is Status.COMPLETED and filled.open_amount and filled.pnl_reported is None:
        raise IllegalTransition(
            f"{plain(filled.open_amount)} is still open, so it cannot be {status}",
            field="status",
            value=status,
            cure="add the exit fill or close_trade for the rest, or report the result with update_trade_pnl",
        )
    return with_status(filled, status, at=at)


def _filled(trade: Trade, at: int) -> Trade:
    if trade.price is None:
        raise IllegalTransition(
            "the price of the fill is not known", field="price", value=None, cure="add the fill instead"
        )
    entry = Fill(
        fill_id=f"{trade.trade_id}:{'rest' if trade.filled else 'entry'}",
        role=Role.ENTRY,
        amount=canonical(CONTEXT.subtract(trade.amount, trade.filled)),
        price=trade.price,
        at=at,
    )
    return book_fill(trade, entry)
