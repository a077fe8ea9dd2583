"""A new trade's books: from what the caller says happened to fills, status, times and outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model.fields import reject
from tradepool.model.kinds import Role, Status
from tradepool.model.lifecycle import LATE_STATUSES, outcome_of, status_from_fills
from tradepool.model.money import ZERO, minus, plus
from tradepool.model.pnl import fold_fills, known_fill, refigure, shrunk_to_filled
from tradepool.model.status_words import read_status
from tradepool.model.trade import Fill, Trade

__all__ = ["Claim", "open_books"]

# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_ENTRY, _EXIT = Role.ENTRY, Role.EXIT
_PARTIALLY_FILLED, _FILLED = Status.PARTIALLY_FILLED, Status.FILLED
_PARTIALLY_CLOSED, _COMPLETED = Status.PARTIALLY_CLOSED, Status.COMPLETED
_FILLED_OR_LATER = frozenset({_FILLED, _PARTIALLY_CLOSED, _COMPLETED})


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    is_record: bool = False
    """Whether a pool said all this: its filled trade may have a further order that is not."""
    is_booked: bool = False
    """Whether a pool has booked the fills, in this order."""

    @property
    def has_exit(self) -> bool:
        """Whether an exit is known."""
        if self.exit_price is not None or not self.fills:
            return self.exit_price is not None
        return any(fill.role is _EXIT for fill in self.fills)


def open_books(trade: Trade, claim: Claim) -> Trade:
    """`trade` (no fills, pending) with what `claim` says booked, at the status that follows from it.

    Raises: InvalidTrade for a status that lacks its evidence or contradicts the fills, and times out of
    order; IllegalTransition and IdempotencyConflict as `pnl.fold_fills`.
    """
    status, note = _claimed_status(trade, claim)
    folded = _with_exit(_with_entries(trade, claim, status), claim, status)
    if status in LATE_STATUSES and folded.filled and folded.filled < folded.amount:
        folded = shrunk_to_filled(folded)
    status = _supported_status(folded, status, is_record=claim.is_record)
    changes: dict[str, Any] = {"status": status}
    notes = [] if note is None else [note]
    if status is _COMPLETED:
        changes["outcome"] = outcome_of(folded)
        if folded.closed and folded.open_amount:
            notes.append("completed_with_open_amount")
    if notes:
        changes["notes"] = tuple(notes)
    if folded.filled:
        changes |= _times(folded, status, claim)
    return msgspec.structs.replace(folded, **changes)


def _claimed_status(trade: Trade, claim: Claim) -> tuple[Status | None, str | None]:
    if claim.status is None:
        return (None if claim.exit_price is None else _COMPLETED), None
    has_fill = bool(claim.fills or claim.filled)
    return read_status(claim.status, filled=has_fill, closed=claim.has_exit, pnl=trade.pnl_reported)


def _with_entries(trade: Trade, claim: Claim, status: Status | None) -> Trade:
    folded = refigure(trade) if trade.funding or trade.interest else trade
    if claim.fills:
        for fill in _in_order(trade, claim):
            if not known_fill(folded, fill):
                folded = fold_fills(folded, (fill,))
    if folded.filled or not (quantity := _implied_quantity(trade, claim, status)):
        return folded
    if trade.price is None:
        reject("price", "missing", None, "a filled trade needs its price, or its fills")
    entry = Fill(
        fill_id=f"{trade.trade_id}:entry",
        role=_ENTRY,
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
    if status is _PARTIALLY_FILLED:
        reject("filled", "missing", None, "a partially filled trade needs its filled amount, or its fills")
    return trade.amount if status in _FILLED_OR_LATER else None


def _in_order(trade: Trade, claim: Claim) -> list[Fill]:
    """The fills, named and dated: by time where every one has it, but as a pool booked them.

    Of one time they come as told, unless that has an exit before the entries it takes.
    """
    dated: Sequence[Fill] = claim.fills
    if not claim.is_booked and all(fill.at for fill in claim.fills):
        dated = sorted(claim.fills, key=lambda fill: fill.at)
        if not _can_follow(dated):
            dated.sort(key=lambda fill: (fill.at, fill.role is _EXIT))
    return [_named(trade, index, fill) for index, fill in enumerate(dated)]


def _can_follow(fills: Iterable[Fill]) -> bool:
    held = ZERO
    for fill in fills:
        held = plus(held, fill.amount) if fill.role is _ENTRY else minus(held, fill.amount)
        if held < ZERO:
            return False
    return True


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
    quantity = claim.closed or (folded.open_amount if status is _COMPLETED else None)
    if not quantity or status not in (_COMPLETED, _PARTIALLY_CLOSED):
        cure = "a completed trade, or a partially closed one with its closed amount"
        reject("exit_price", "given for a trade that is not closed", claim.exit_price, cure)
    leave = Fill(
        fill_id=f"{folded.trade_id}:exit",
        role=_EXIT,
        amount=quantity,
        price=claim.exit_price,
        fee=claim.exit_fee,
        fee_currency=claim.exit_fee_currency,
        at=claim.closed_at or max(folded.created_at, *(fill.at for fill in folded.fills)),
    )
    return fold_fills(folded, (leave,))


def _supported_status(trade: Trade, claimed: Status | None, *, is_record: bool) -> Status:
    if claimed is _COMPLETED:
        if not trade.closed and trade.pnl_reported is None:
            cure = "a completed trade needs an exit_price, exit fills or a reported pnl"
            reject("status", "no closing evidence", claimed, cure)
        return claimed
    if claimed is _PARTIALLY_CLOSED and not trade.closed:
        return claimed
    if claimed is Status.REJECTED and trade.filled:
        reject("status", "contradicts the fills", claimed, "a rejected trade has no fills")
    if not trade.filled:
        return Status.PENDING if claimed is None else claimed
    derived = status_from_fills(trade)
    if claimed is _FILLED and derived is _PARTIALLY_FILLED:
        if is_record:
            return claimed
        reject("status", "contradicts the fills", claimed, "partially_filled, or all of the fills")
    return derived


def _times(trade: Trade, status: Status, claim: Claim) -> dict[str, int]:
    opened_at = claim.opened_at or max(trade.created_at, min([fill.at for fill in trade.fills]))
    if opened_at < trade.created_at:
        reject("opened_at", "before created_at", opened_at, "created_at ≤ opened_at ≤ closed_at")
    if status is not _COMPLETED:
        return {"opened_at": opened_at}
    closed_at = claim.closed_at or max(opened_at, *(fill.at for fill in trade.fills))
    if closed_at < opened_at:
        reject("closed_at", "before opened_at", closed_at, "created_at ≤ opened_at ≤ closed_at")
    return {"opened_at": opened_at, "closed_at": closed_at}
