"""A new trade's books: from what the caller says happened to fills, status, times and outcome."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from tradepool.model.fields import reject
from tradepool.model.kinds import Role, Status
from tradepool.model.lifecycle import LATE_STATUSES, outcome_of, status_from_fills
from tradepool.model.money import ZERO
from tradepool.model.pnl import fold_fills, known_fill, refigure, shrunk_to_filled
from tradepool.model.status_words import Evidence, read_status
from tradepool.model.trade import Fill, Trade

__all__ = ["Claim", "open_books"]

_FILLED_OR_LATER = frozenset({Status.FILLED, Status.PARTIALLY_CLOSED, Status.COMPLETED})


class Claim(NamedTuple):
    """What the caller says happened to a new trade; None is unsaid."""

    status: str | None = None
    fills: tuple[Fill, ...] = ()
    """As read: an id may be "" and a time 0."""
    filled: Decimal | None = None
    closed: Decimal | None = None
    fee: Decimal = ZERO
    fee_currency: str | None = None
    exit_price: Decimal | None = None
    exit_fee: Decimal = ZERO
    exit_fee_currency: str | None = None
    opened_at: int | None = None
    closed_at: int | None = None

    @property
    def has_exit(self) -> bool:
        """Whether an exit is known."""
        return self.exit_price is not None or any(fill.role is Role.EXIT for fill in self.fills)


def open_books(trade: Trade, claim: Claim) -> Trade:
    """`trade` (no fills, pending) with what `claim` says booked, at the status that follows from it.

    Raises: InvalidTrade for a status that lacks its evidence or contradicts the fills, and times out of
    order; IllegalTransition and IdempotencyConflict as `pnl.fold_fills`.
    """
    status, note = _claimed_status(trade, claim)
    folded = _with_exit(_with_entries(trade, claim, status), claim, status)
    if note:
        folded = msgspec.structs.replace(folded, notes=(note,))
    return _with_times(_with_claimed_status(folded, status), claim)


def _claimed_status(trade: Trade, claim: Claim) -> tuple[Status | None, str | None]:
    if claim.status is None:
        return (Status.COMPLETED if claim.exit_price is not None else None), None
    has_fill = bool(claim.fills or claim.filled)
    return read_status(claim.status, Evidence(has_fill, claim.has_exit, trade.pnl_reported))


def _with_entries(trade: Trade, claim: Claim, status: Status | None) -> Trade:
    folded = refigure(trade) if trade.funding or trade.interest else trade
    for fill in _in_order(trade, claim.fills):
        if not known_fill(folded, fill):
            folded = fold_fills(folded, (fill,))
    if folded.filled or not (quantity := _implied_quantity(trade, claim, status)):
        return folded
    if trade.price is None:
        reject("price", "missing", None, "a filled trade needs its price, or its fills")
    entry = Fill(
        fill_id=f"{trade.trade_id}:entry",
        role=Role.ENTRY,
        amount=quantity,
        price=trade.price,
        fee=claim.fee,
        fee_currency=claim.fee_currency,
        at=claim.opened_at or trade.created_at,
    )
    return fold_fills(folded, (entry,))


def _implied_quantity(trade: Trade, claim: Claim, status: Status | None) -> Decimal | None:
    if claim.filled:
        return claim.filled
    if status is Status.PARTIALLY_FILLED:
        reject("filled", "missing", None, "a partially filled trade needs its filled amount, or its fills")
    return trade.amount if status in _FILLED_OR_LATER else None


def _in_order(trade: Trade, fills: tuple[Fill, ...]) -> list[Fill]:
    """The fills by time where every one has its time, else as given; named and dated."""
    dated: Iterable[Fill] = fills
    if all(fill.at for fill in fills):
        dated = sorted(fills, key=lambda fill: (fill.at, fill.role is Role.EXIT))
    return [_named(trade, index, fill) for index, fill in enumerate(dated)]


def _named(trade: Trade, index: int, fill: Fill) -> Fill:
    fill_id = fill.fill_id or f":{index}"
    if fill_id.startswith(":"):
        # Ours, given before the trade had an id: it must not meet another trade's.
        fill_id = trade.trade_id + fill_id
    return msgspec.structs.replace(fill, fill_id=fill_id, at=fill.at or trade.created_at)


def _with_exit(folded: Trade, claim: Claim, status: Status | None) -> Trade:
    if folded.closed:
        return folded
    if claim.exit_price is None:
        if claim.closed:
            reject("exit_price", "missing", None, "a closed amount needs its exit price, or its exit fills")
        return folded
    quantity = claim.closed or (folded.open_amount if status is Status.COMPLETED else None)
    if not quantity or status not in (Status.COMPLETED, Status.PARTIALLY_CLOSED):
        cure = "a completed trade, or a partially closed one with its closed amount"
        reject("exit_price", "given for a trade that is not closed", claim.exit_price, cure)
    leave = Fill(
        fill_id=f"{folded.trade_id}:exit",
        role=Role.EXIT,
        amount=quantity,
        price=claim.exit_price,
        fee=claim.exit_fee,
        fee_currency=claim.exit_fee_currency,
        at=claim.closed_at or max(folded.created_at, *(fill.at for fill in folded.fills)),
    )
    return fold_fills(folded, (leave,))


def _with_claimed_status(trade: Trade, claimed: Status | None) -> Trade:
    if claimed in LATE_STATUSES and trade.filled and trade.filled < trade.amount:
        trade = shrunk_to_filled(trade)
    status = _supported_status(trade, claimed)
    notes = trade.notes
    if status is Status.COMPLETED and trade.closed and trade.open_amount:
        notes = (*notes, "completed_with_open_amount")
    outcome = outcome_of(trade) if status is Status.COMPLETED else None
    return msgspec.structs.replace(trade, status=status, outcome=outcome, notes=notes)


def _supported_status(trade: Trade, claimed: Status | None) -> Status:
    derived = status_from_fills(trade)
    if claimed is Status.COMPLETED:
        if not trade.closed and trade.pnl_reported is None:
            cure = "a completed trade needs an exit_price, exit fills or a reported pnl"
            reject("status", "no closing evidence", claimed, cure)
        return claimed
    if claimed is Status.PARTIALLY_CLOSED and not trade.closed:
        return claimed
    if claimed is Status.REJECTED and trade.filled:
        reject("status", "contradicts the fills", claimed, "a rejected trade has no fills")
    if claimed is Status.FILLED and derived is Status.PARTIALLY_FILLED:
        reject("status", "contradicts the fills", claimed, "partially_filled, or all of the fills")
    return derived if trade.filled or claimed is None else claimed


def _with_times(trade: Trade, claim: Claim) -> Trade:
    if not trade.filled:
        return trade
    first = min(fill.at for fill in trade.fills)
    opened_at = claim.opened_at or max(trade.created_at, first)
    if opened_at < trade.created_at:
        reject("opened_at", "before created_at", opened_at, "created_at ≤ opened_at ≤ closed_at")
    if trade.status is not Status.COMPLETED:
        return msgspec.structs.replace(trade, opened_at=opened_at)
    last = max(fill.at for fill in trade.fills)
    closed_at = claim.closed_at or max(opened_at, last)
    if closed_at < opened_at:
        reject("closed_at", "before opened_at", closed_at, "created_at ≤ opened_at ≤ closed_at")
    return msgspec.structs.replace(trade, opened_at=opened_at, closed_at=closed_at)
