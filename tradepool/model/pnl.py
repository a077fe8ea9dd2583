"""Booking fills: the one fold that every figure of a trade comes from.

Average cost is canonical. With s = +1 long, −1 short, m = contract size, Q open quantity, C its cost:
an exit of q at p takes the share C·q/Q of the cost and grosses s·m·(q·p − share), for an inverse
contract s·m·(share − q/p) in the base coin; the last exit takes all that is left of C. Figures are
rounded once, from exact sums, so they do not depend on how fills were batched.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition, InvalidTrade
from tradepool.model.kinds import Role, Side, Status
from tradepool.model.lifecycle import (
    FINAL_STATUSES,
    LATE_STATUSES,
    check_transition,
    outcome_of,
    status_after_fill,
)
from tradepool.model.money import CONTEXT, ONE, ZERO, canonical, plain, quantise, round_cost, round_ratio
from tradepool.model.trade import Fill, Trade
from tradepool.model.valuation import FeeEffect, fee_effect, gross, notional

__all__ = [
    "DERIVED_FIELDS",
    "FILLS_MAX",
    "book_fill",
    "fold_fills",
    "known_fill",
    "recompute",
    "refigure",
    "shrunk_to_filled",
    "with_status",
]

FILLS_MAX = 10_000
"""Fills that one trade can hold."""

_RETURN_DIGITS_MAX = 24
"""A return of more digits says only that the stake was nothing."""

_BLANK: dict[str, Any] = {
    "filled": ZERO,
    "closed": ZERO,
    "entry_cost": ZERO,
    "exit_value": ZERO,
    "open_cost": ZERO,
    "held_fees": ZERO,
    "entry_fee": ZERO,
    "exit_fee": ZERO,
    "open_fee": ZERO,
    "fees": {},
    "fee_unpriced": False,
}
DERIVED_FIELDS = (*_BLANK, "pnl_gross", "pnl_net", "pnl_cash_net", "roi_net", "outcome")
"""What `recompute` derives; everything else is given or decided."""


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
    if fill.role is Role.ENTRY and (trade.status in LATE_STATUSES or trade.amount_ordered is not None):
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
    books = _Books(trade)
    with decimal.localcontext(CONTEXT):
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
    return _judged(fold_fills(msgspec.structs.replace(trade, fills=(), **_BLANK), trade.fills))


def with_status(trade: Trade, status: Status, *, at: int) -> Trade:
    """`trade` in `status` since `at` (µs), with the times and the outcome that follow from it.

    Whether the move is legal is the caller's to check.
    """
    changes: dict[str, Any] = {"status": status}
    if trade.filled and trade.opened_at is None:
        changes["opened_at"] = max(trade.created_at, at)
    if status is Status.COMPLETED:
        changes["outcome"] = outcome_of(trade)
        if trade.closed_at is None:
            changes["closed_at"] = max(trade.created_at, changes.get("opened_at") or trade.opened_at or 0, at)
    return msgspec.structs.replace(trade, **changes)


def shrunk_to_filled(trade: Trade) -> Trade:
    """An order whose rest will not come: its amount is what was filled, the first one is kept."""
    ordered = trade.amount_ordered or trade.amount
    return msgspec.structs.replace(trade, amount=trade.filled, amount_ordered=ordered)


def _judged(trade: Trade) -> Trade:
    if trade.status is not Status.COMPLETED:
        return trade
    return msgspec.structs.replace(trade, outcome=outcome_of(trade))


class _Books:
    """The running sums of one trade while fills are booked."""

    def __init__(self, trade: Trade) -> None:
        self._trade = trade
        self._terms = trade.terms
        self._fills = list(trade.fills)
        self._fees = dict(trade.fees)
        self._unpriced = trade.fee_unpriced
        self._amount = trade.amount
        self._filled, self._closed, self._held_fees = trade.filled, trade.closed, trade.held_fees
        self._entry_cost, self._exit_value, self._open_cost = (
            trade.entry_cost,
            trade.exit_value,
            trade.open_cost,
        )
        self._entry_fee, self._exit_fee, self._open_fee = trade.entry_fee, trade.exit_fee, trade.open_fee

    def book(self, fill: Fill) -> None:
        """Add one fill to the sums."""
        if len(self._fills) >= FILLS_MAX:
            raise InvalidTrade("too many fills", field="fills", value=FILLS_MAX, cure="open another trade")
        effect = fee_effect(self._terms, fill)
        if fill.role is Role.ENTRY:
            self._enter(fill, effect)
        else:
            self._exit(fill, effect)
        self._fills.append(fill)
        self._unpriced = self._unpriced or effect.unpriced
        if fill.fee:
            coin = fill.fee_currency or self._terms.settlement_currency
            self._fees[coin] = canonical(self._fees.get(coin, ZERO) + fill.fee)

    def fields(self) -> dict[str, Any]:
        """The sums and the figures derived from them, by the trade's field names."""
        return {
            "fills": tuple(self._fills),
            "amount": self._amount,
            "filled": canonical(self._filled),
            "closed": canonical(self._closed),
            "entry_cost": canonical(self._entry_cost),
            "exit_value": canonical(self._exit_value),
            "open_cost": canonical(self._open_cost),
            "held_fees": canonical(self._held_fees),
            "entry_fee": canonical(self._entry_fee),
            "exit_fee": canonical(self._exit_fee),
            "open_fee": canonical(self._open_fee),
            "fees": self._fees,
            "fee_unpriced": self._unpriced,
            **self._figures(),
        }

    def _enter(self, fill: Fill, effect: FeeEffect) -> None:
        ordered = max(self._amount, self._trade.amount_ordered or ZERO)
        if self._filled + fill.amount > ordered:
            raise _beyond("fills more than was ordered", fill, ordered - self._filled)
        if effect.held >= fill.amount:
            raise InvalidTrade("takes the whole fill", field="fee", value=fill.fee, cure="below the amount")
        cost = notional(self._terms.market, fill.amount, fill.price)
        self._filled += fill.amount
        self._amount = max(self._amount, canonical(self._filled))
        self._held_fees += effect.held
        self._entry_cost += cost
        self._open_cost += cost
        self._entry_fee += effect.settled
        self._open_fee += effect.settled

    def _exit(self, fill: Fill, effect: FeeEffect) -> None:
        if self._closed + fill.amount > self._filled:
            raise _beyond("closes more than is filled", fill, self._filled - self._closed)
        held = self._filled - self._closed - self._held_fees
        leaving = fill.amount + effect.held
        cost, fee = self._open_cost, self._open_fee
        if leaving < held:
            cost, fee = round_cost(cost * leaving / held), round_cost(fee * leaving / held)
        self._closed += fill.amount
        # Coins that the trade did not hold came from elsewhere, at a cost it cannot know.
        self._unpriced = self._unpriced or leaving > held
        self._held_fees = min(self._held_fees + effect.held, self._filled - self._closed)
        self._exit_value += notional(self._terms.market, fill.amount, fill.price)
        self._exit_fee += effect.settled
        self._open_cost -= cost
        self._open_fee -= fee

    def _figures(self) -> dict[str, Any]:
        trade = self._trade
        price_gain = gross(self._terms, self._entry_cost - self._open_cost, self._exit_value)
        carried = trade.funding - trade.interest
        cash = price_gain - self._entry_fee - self._exit_fee + carried
        net = cash + self._open_fee
        return {
            "pnl_gross": quantise(price_gain),
            "pnl_net": quantise(net),
            "pnl_cash_net": quantise(cash),
            "roi_net": self._return_on_cost(net),
        }

    def _return_on_cost(self, net: Decimal) -> Decimal | None:
        sign = ONE if self._terms.side is Side.BUY else -ONE
        stake = self._entry_cost * self._terms.contract_size + sign * self._entry_fee
        if not self._closed or stake <= 0:
            return None
        ratio = net / stake * self._trade.leverage
        return round_ratio(ratio) if ratio.adjusted() < _RETURN_DIGITS_MAX else None


def _payload(trade: Trade, fill: Fill) -> tuple[object, ...]:
    coin = (fill.fee_currency or trade.settlement_currency) if fill.fee else None
    return (fill.role, fill.amount, fill.price, fill.fee, coin, fill.fee_price, fill.order_id)


def _beyond(problem: str, fill: Fill, room: Decimal) -> IllegalTransition:
    return IllegalTransition(problem, field="amount", value=plain(fill.amount), cure=f"at most {plain(room)}")
