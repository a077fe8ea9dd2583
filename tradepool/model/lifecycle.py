"""The moves a trade can make: one literal table, and what a fill does to the status."""

from __future__ import annotations

from types import MappingProxyType

from tradepool.errors import IllegalTransition
from tradepool.model.kinds import Role, Status, TradeOutcome
from tradepool.model.trade import Trade

__all__ = [
    "FINAL_STATUSES",
    "LATE_STATUSES",
    "TRANSITIONS",
    "check_transition",
    "outcome_of",
    "status_after_fill",
    "status_from_fills",
]

TRANSITIONS = MappingProxyType(
    {
        Status.PENDING: frozenset(
            {
                Status.SUBMITTED,
                Status.REJECTED,
                Status.CANCELLED,
                Status.EXPIRED,
                Status.PARTIALLY_FILLED,
                Status.FILLED,
            }
        ),
        Status.SUBMITTED: frozenset(
            {Status.PARTIALLY_FILLED, Status.FILLED, Status.CANCELLED, Status.EXPIRED, Status.REJECTED}
        ),
        # Cancelling the rest of a partly filled order makes it a filled one of the smaller amount.
        Status.PARTIALLY_FILLED: frozenset(
            {Status.FILLED, Status.CANCELLED, Status.PARTIALLY_CLOSED, Status.COMPLETED}
        ),
        Status.FILLED: frozenset({Status.PARTIALLY_CLOSED, Status.COMPLETED}),
        Status.PARTIALLY_CLOSED: frozenset({Status.PARTIALLY_CLOSED, Status.COMPLETED}),
        # A fill that the venue made before it cancelled, but told later.
        Status.CANCELLED: frozenset({Status.FILLED}),
        Status.EXPIRED: frozenset({Status.FILLED}),
        Status.COMPLETED: frozenset(),
        Status.REJECTED: frozenset(),
    }
)

FINAL_STATUSES = frozenset(status for status, moves in TRANSITIONS.items() if not moves)

LATE_STATUSES = frozenset({Status.CANCELLED, Status.EXPIRED})
"""Ended without a fill; a fill the venue made before, but told later, reopens the trade."""


# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_FILLED, _COMPLETED, _ENTRY = Status.FILLED, Status.COMPLETED, Role.ENTRY


def check_transition(trade: Trade, new: Status) -> None:
    """Pass when `trade` may move to `new`, or is there already.

    Raises: IllegalTransition naming both statuses and what would be legal.
    """
    if new is trade.status or new in TRANSITIONS[trade.status]:
        return
    legal = ", ".join(sorted(TRANSITIONS[trade.status])) or "nothing: it is final"
    raise IllegalTransition(
        f"a {trade.status} trade cannot become {new}",
        field="status",
        value=str(new),
        cure=f"legal from {trade.status}: {legal}",
    )


def status_after_fill(before: Trade, booked: Trade, role: Role) -> Status:
    """The status of `before` once a fill of `role` made it `booked` (figures only)."""
    if role is _ENTRY and before.status in LATE_STATUSES:
        return _FILLED
    if role is _ENTRY and before.status is _FILLED:
        return _FILLED
    return status_from_fills(booked)


def status_from_fills(trade: Trade) -> Status:
    """What the booked quantities say; PENDING when there is no fill."""
    if not trade.filled:
        return Status.PENDING
    if trade.closed:
        return Status.PARTIALLY_CLOSED if trade.open_amount else _COMPLETED
    return _FILLED if trade.filled >= trade.amount else Status.PARTIALLY_FILLED


def outcome_of(trade: Trade) -> TradeOutcome:
    """Win, loss or flat by the sign of the trade's PnL."""
    pnl = trade.pnl
    if not pnl:
        return TradeOutcome.FLAT
    return TradeOutcome.WIN if pnl > 0 else TradeOutcome.LOSS
