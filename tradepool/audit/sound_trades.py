"""Proof that a usual trade is sound: the rules of `trade_rules` at once, in a fraction of their time.

Nearly every record of an audit is a trade whose fees, if it has any, were paid in the coin that it settles
in, and that nobody has exited yet, or that is flat again. The figures of those are sums of its fills, so one
pass over these tells whether they are right. Whoever gets a yes need ask no rule; a no says nothing: of
whatever is less usual the rules themselves decide, and they alone say what is wrong.

All sums are exact here, or there is no proof: one that would have to be rounded raises.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import NamedTuple

from tradepool.audit.rules.trade_rules import AHEAD_MAX_US, OPEN_QUIET_US, PENDING_MAX_US
from tradepool.model.books import return_on_cost
from tradepool.model.kinds import OPEN_STATUSES, Market, Role, Side, Status
from tradepool.model.lifecycle import outcome_of
from tradepool.model.money import CONTEXT, ONE, ZERO, quantise
from tradepool.model.trade import SCHEMA_VERSION, Trade
from tradepool.model.valuation import gross

__all__ = ["is_sound"]

_SPARE_DIGITS = 10
"""What is exact with so many digits less is exact in whatever order a rule adds it up."""
_EXACT = decimal.Context(
    prec=CONTEXT.prec - _SPARE_DIGITS, traps=[decimal.Rounded, decimal.InvalidOperation, decimal.Overflow]
)
_FILLS_MAX = 1000
"""Trades of more fills are left to the rules."""

# Bound once: every record of a deep audit passes here.
_add, _subtract, _multiply = _EXACT.add, _EXACT.subtract, _EXACT.multiply
_ENTRY, _BUY, _SPOT, _INVERSE = Role.ENTRY, Side.BUY, Market.SPOT, Market.INVERSE
_COMPLETED = Status.COMPLETED
_WAITING = frozenset({Status.PENDING, Status.SUBMITTED})
_UNFILLED = frozenset({*_WAITING, Status.CANCELLED, Status.EXPIRED, Status.REJECTED})
_ENTERED = frozenset({Status.FILLED, Status.PARTIALLY_FILLED})
_LEFT = frozenset({_COMPLETED, Status.PARTIALLY_CLOSED})


def is_sound(trade: Trade, now_us: int) -> bool:
    """Whether it is certain that no rule about one trade by itself finds anything in it at `now_us` (µs)."""
    if trade.schema_version != SCHEMA_VERSION or trade.pnl_reported is not None or trade.fee_unpriced:
        return False
    if not _are_times_right(trade, now_us):
        return False
    try:
        if not trade.fills:
            return trade.status in _UNFILLED and trade.amount >= ZERO and _is_blank(trade)
        return trade.market is not _INVERSE and _are_fills_right(trade, now_us)
    except decimal.DecimalException:
        return False


def _are_times_right(trade: Trade, now_us: int) -> bool:
    latest, opened, closed, updated = trade.created_at, trade.opened_at, trade.closed_at, trade.updated_at
    if opened is not None:
        if opened < latest:
            return False
        latest = opened
    if closed is not None:
        if closed < latest:
            return False
        latest = closed
    if max(latest, updated) > now_us + AHEAD_MAX_US:
        return False
    if updated >= now_us - PENDING_MAX_US or trade.status not in OPEN_STATUSES:
        return True
    return trade.status not in _WAITING and updated >= now_us - OPEN_QUIET_US


def _is_blank(trade: Trade) -> bool:
    """Whether every figure is that of a trade to which nothing has happened."""
    return trade.roi_net is None and not (
        trade.filled
        or trade.closed
        or trade.entry_cost
        or trade.exit_value
        or trade.open_cost
        or trade.held_fees
        or trade.entry_fee
        or trade.exit_fee
        or trade.open_fee
        or trade.fees
        or trade.pnl_gross
        or trade.pnl_net
        or trade.pnl_cash_net
        or trade.funding
        or trade.interest
    )


class _Sums(NamedTuple):
    """What the fills of a trade come to."""

    filled: Decimal
    closed: Decimal
    cost: Decimal
    value: Decimal
    entry_fee: Decimal
    exit_fee: Decimal
    has_fees: bool


def _are_fills_right(trade: Trade, now_us: int) -> bool:
    sums = _sums_of(trade, now_us + AHEAD_MAX_US)
    if sums is None:
        return False
    filled, closed, cost, value, entry_fee, exit_fee, has_fees = sums
    if (
        trade.filled != filled
        or trade.closed != closed
        or filled > trade.amount
        or trade.entry_cost != cost
        or trade.exit_value != value
        or trade.entry_fee != entry_fee
        or trade.exit_fee != exit_fee
        or trade.held_fees
    ):
        return False
    if has_fees:
        if trade.fees != {trade.settlement_currency: _add(entry_fee, exit_fee)}:
            return False
    elif trade.fees:
        return False
    return _is_flat_right(trade, sums) if closed else _is_open_right(trade, sums)


def _sums_of(trade: Trade, latest: int) -> _Sums | None:
    """None for fills that are not usual, later than `latest` (µs), or could never have been booked."""
    if len(trade.fills) > _FILLS_MAX:
        return None
    filled = closed = cost = value = entry_fee = exit_fee = ZERO
    has_fees = False
    for fill in trade.fills:
        amount, fee = fill.amount, fill.fee
        if fill.at > latest or not amount > ZERO:
            return None
        if fee:
            has_fees = True
            if fill.fee_currency is not None and fill.fee_currency != trade.settlement_currency:
                return None
        worth = _multiply(amount, fill.price)
        if fill.role is _ENTRY:
            filled, cost = _add(filled, amount), _add(cost, worth)
            entry_fee = _add(entry_fee, fee) if fee else entry_fee
        else:
            closed, value = _add(closed, amount), _add(value, worth)
            exit_fee = _add(exit_fee, fee) if fee else exit_fee
            if closed > filled:
                return None
    return _Sums(filled, closed, cost, value, entry_fee, exit_fee, has_fees)


def _is_open_right(trade: Trade, sums: _Sums) -> bool:
    """The figures of a trade that nobody has exited."""
    entry_fee = sums.entry_fee
    if (
        trade.status not in _ENTERED
        or trade.open_cost != sums.cost
        or trade.open_fee != entry_fee
        or trade.pnl_gross
        or trade.roi_net is not None
    ):
        return False
    if not (entry_fee or trade.interest or trade.funding):
        return not (trade.pnl_net or trade.pnl_cash_net)
    cash = _after_costs(trade, ZERO, sums)
    return trade.pnl_cash_net == quantise(cash) and trade.pnl_net == quantise(_add(cash, entry_fee))


def _is_flat_right(trade: Trade, sums: _Sums) -> bool:
    """The figures of a trade of which nothing is open; what a part of a cost comes to the rules know."""
    if sums.closed != sums.filled or trade.status not in _LEFT or trade.open_cost or trade.open_fee:
        return False
    gain = gross(trade.terms, sums.cost, sums.value)
    cash = _after_costs(trade, gain, sums)
    if (
        trade.pnl_gross != quantise(gain)
        or trade.pnl_net != (net := quantise(cash))
        or trade.pnl_cash_net != net
        or trade.roi_net != return_on_cost(trade.terms, sums.cost, sums.entry_fee, cash, trade.leverage)
    ):
        return False
    if trade.status is not _COMPLETED:
        return True
    return trade.outcome is outcome_of(trade) and (trade.market is not _SPOT or _is_cash_right(trade, sums))


def _is_cash_right(trade: Trade, sums: _Sums) -> bool:
    """Whether the cash flows of a flat spot trade are what its figures were made from, and exact together."""
    flows = _add(_add(sums.cost, sums.value), _add(sums.entry_fee, sums.exit_fee))
    _add(_add(flows, trade.funding), trade.interest)
    return ":" not in trade.symbol and trade.side is _BUY and trade.contract_size == ONE


def _after_costs(trade: Trade, gain: Decimal, sums: _Sums) -> Decimal:
    for cost in (sums.entry_fee, sums.exit_fee, trade.interest):
        if cost:
            gain = _subtract(gain, cost)
    return _add(gain, trade.funding) if trade.funding else gain
