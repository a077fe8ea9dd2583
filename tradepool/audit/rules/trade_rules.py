"""Rules for one trade by itself: quantities, status, times, figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from tradepool.audit.report import Finding, Severity
from tradepool.audit.rules.registry import RULES, Fault, Level, Repair, rule
from tradepool.errors import Rejected
from tradepool.model import pnl
from tradepool.model.kinds import OPEN_STATUSES, Market, Role, Status
from tradepool.model.money import CONTEXT, ZERO, quantise
from tradepool.model.trade import SCHEMA_VERSION, Trade

__all__ = [
    "AHEAD_MAX_US",
    "OPEN_QUIET_US",
    "PENDING_MAX_US",
    "REPORTED_TOLERANCE",
    "cash_identity",
    "check_trade",
    "clock_skew",
    "lifecycle",
    "open_without_update",
    "quantities",
    "recomputed_figures",
    "reported_pnl",
    "stale_pending",
    "time_order",
    "trade_schema",
    "unpriced_fee",
]

_MINUTE_US = 60 * 1_000_000
_DAY_US = 24 * 60 * _MINUTE_US
AHEAD_MAX_US = 5 * _MINUTE_US
"""How far clocks may differ."""
PENDING_MAX_US = 7 * _DAY_US
"""How long an order may wait without a word about it."""
OPEN_QUIET_US = 90 * _DAY_US
"""How long a position may be open without a word about it."""
REPORTED_TOLERANCE = Decimal("0.001")
"""How far a reported PnL may be from the computed one, as a part of what was paid at entry: bots count in
floats, and round."""

# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_ENTRY, _SPOT = Role.ENTRY, Market.SPOT
_PENDING, _SUBMITTED, _COMPLETED = Status.PENDING, Status.SUBMITTED, Status.COMPLETED
_FILLED, _PARTLY_FILLED, _PARTLY_CLOSED = Status.FILLED, Status.PARTIALLY_FILLED, Status.PARTIALLY_CLOSED
_NEVER_FILLED = frozenset({_PENDING, _SUBMITTED, Status.CANCELLED, Status.EXPIRED, Status.REJECTED})
_WAITING = frozenset({_PENDING, _SUBMITTED})


def check_trade(trade: Trade, *, now_us: int) -> list[Finding]:
    """Every finding about one trade on its own, as of `now_us` (µs)."""
    found: list[Finding] = []
    for name, check in _OF_TRADE:
        for fault in check(trade):
            found += [RULES[name].finding(*fault)]
    for name, check_in_time in _OF_TRADE_IN_TIME:
        for fault in check_in_time(trade, now_us):
            found += [RULES[name].finding(*fault)]
    return found


@rule(Severity.CRITICAL, Level.STANDARD, Repair.QUARANTINE)
def quantities(trade: Trade) -> Iterable[Fault]:
    """0 ≤ closed ≤ filled ≤ amount holds for every trade."""
    if 0 <= trade.closed <= trade.filled <= trade.amount:
        return ()
    return [(trade.trade_id, f"closed {trade.closed}, filled {trade.filled}, amount {trade.amount}")]


@rule(Severity.CRITICAL, Level.STANDARD, Repair.QUARANTINE)
def lifecycle(trade: Trade) -> Iterable[Fault]:
    """The status says what the quantities say: nothing is filled before the first fill, nothing is left open
    in a completed trade unless its result was reported.
    """
    status = trade.status
    if status is _FILLED or status is _PARTLY_FILLED:
        contradicts = not trade.filled
    elif status in _NEVER_FILLED:
        contradicts = bool(trade.filled)
    elif trade.pnl_reported is not None:
        contradicts = False
    elif status is _PARTLY_CLOSED:
        contradicts = not trade.closed
    else:
        contradicts = CONTEXT.subtract(CONTEXT.subtract(trade.filled, trade.closed), trade.held_fees) > 0
    if not contradicts:
        return ()
    return [(trade.trade_id, f"{status} with {trade.filled} filled and {trade.closed} closed")]


@rule(Severity.WARNING, Level.STANDARD)
def time_order(trade: Trade) -> Iterable[Fault]:
    """Created ≤ opened ≤ closed holds for every trade."""
    opened = trade.created_at if trade.opened_at is None else trade.opened_at
    closed = opened if trade.closed_at is None else trade.closed_at
    if trade.created_at <= opened <= closed:
        return ()
    times = f"created {trade.created_at}, opened {trade.opened_at}, closed {trade.closed_at} (µs)"
    return [(trade.trade_id, times)]


@rule(Severity.CRITICAL, Level.STANDARD, Repair.QUARANTINE)
def recomputed_figures(trade: Trade) -> Iterator[Fault]:
    """The stored quantities, costs and PnL are what the trade's own fills come to."""
    try:
        again = pnl.recompute(trade)
    except Rejected as refusal:
        yield trade.trade_id, f"its fills could never have been booked: {refusal}"
        return
    for field in pnl.DERIVED_FIELDS:
        stored, recomputed = getattr(trade, field), getattr(again, field)
        if stored != recomputed:
            yield trade.trade_id, f"{field}: stored {stored}, its fills come to {recomputed}"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.QUARANTINE)
def cash_identity(trade: Trade) -> Iterable[Fault]:
    """The PnL of a flat spot trade is the signed sum of its quote cash flows, without the books."""
    if trade.status is not _COMPLETED or trade.market is not _SPOT or trade.fee_unpriced or not trade.closed:
        return ()
    held, cash = _holding_and_cash(trade)
    if held or quantise(cash) == trade.pnl_net:
        return ()
    return [(trade.trade_id, f"cash flows come to {quantise(cash)}, the PnL is {trade.pnl_net}")]


@rule(Severity.NOTICE, Level.STANDARD)
def reported_pnl(trade: Trade) -> Iterable[Fault]:
    """What somebody reports as the PnL of a completed trade is about what its fills come to."""
    reported = trade.pnl_reported
    if reported is None or trade.status is not _COMPLETED or not trade.closed:
        return ()
    apart = abs(CONTEXT.subtract(reported, trade.pnl_net))
    stake = CONTEXT.multiply(trade.entry_cost, trade.contract_size)
    if apart <= CONTEXT.multiply(stake, REPORTED_TOLERANCE):
        return ()
    return [(trade.trade_id, f"reported {reported}, its fills come to {trade.pnl_net}")]


@rule(Severity.WARNING, Level.STANDARD)
def unpriced_fee(trade: Trade) -> Iterable[Fault]:
    """A fee in a third coin without a rate is missing from the PnL."""
    if not trade.fee_unpriced:
        return ()
    return [(trade.trade_id, f"fees in {', '.join(sorted(trade.fees))} are not all in the PnL")]


@rule(Severity.CRITICAL, Level.STANDARD)
def trade_schema(trade: Trade) -> Iterable[Fault]:
    """A trade is of a schema that this release knows; a newer one may mean other things by its fields."""
    if 1 <= trade.schema_version <= SCHEMA_VERSION:
        return ()
    return [(trade.trade_id, f"schema {trade.schema_version}; this release knows up to {SCHEMA_VERSION}")]


@rule(Severity.WARNING, Level.STANDARD)
def clock_skew(trade: Trade, now_us: int) -> Iterable[Fault]:
    """No time of a trade lies further in the future than clocks may differ."""
    latest = max(trade.updated_at, trade.created_at, trade.closed_at or 0, trade.opened_at or 0)
    for fill in trade.fills:
        latest = max(latest, fill.at)
    if latest <= now_us + AHEAD_MAX_US:
        return ()
    return [(trade.trade_id, f"its latest time, {latest}, is {latest - now_us} µs ahead of the audit")]


@rule(Severity.NOTICE, Level.STANDARD)
def stale_pending(trade: Trade, now_us: int) -> Iterable[Fault]:
    """An order that nobody has said anything about for days is filled, cancelled or forgotten."""
    if trade.status not in _WAITING or trade.updated_at >= now_us - PENDING_MAX_US:
        return ()
    return [(trade.trade_id, f"{trade.status}, last heard of at {trade.updated_at} (µs)")]


@rule(Severity.NOTICE, Level.STANDARD)
def open_without_update(trade: Trade, now_us: int) -> Iterable[Fault]:
    """A position that nobody has said anything about for months may be closed at the venue."""
    if (
        trade.updated_at >= now_us - OPEN_QUIET_US
        or trade.status not in OPEN_STATUSES
        or trade.status in _WAITING
    ):
        return ()
    return [(trade.trade_id, f"{trade.status}, last heard of at {trade.updated_at} (µs)")]


# Taken apart here: every record of a deep audit passes these loops.
_OF_TRADE = tuple(
    (each.name, each.check)
    for each in (
        quantities,
        lifecycle,
        time_order,
        recomputed_figures,
        cash_identity,
        reported_pnl,
        unpriced_fee,
        trade_schema,
    )
)
_OF_TRADE_IN_TIME = tuple(
    (each.name, each.check) for each in (clock_skew, stale_pending, open_without_update)
)


def _holding_and_cash(trade: Trade) -> tuple[Decimal, Decimal]:
    """Base coins left, and quote received less quote paid; by the fills alone."""
    base, _, rest = trade.symbol.partition("/")
    quote = rest.partition(":")[0]
    held, cash = ZERO, CONTEXT.subtract(trade.funding, trade.interest)
    for fill in trade.fills:
        value = CONTEXT.multiply(fill.amount, fill.price)
        is_entry = fill.role is _ENTRY
        held = (CONTEXT.add if is_entry else CONTEXT.subtract)(held, fill.amount)
        cash = (CONTEXT.subtract if is_entry else CONTEXT.add)(cash, value)
        coin = fill.fee_currency or quote
        if coin == base and fill.fee > 0:
            held = CONTEXT.subtract(held, fill.fee)
        elif fill.fee:
            rate = Decimal(1) if coin == quote else fill.fee_price or fill.price
            cash = CONTEXT.subtract(cash, CONTEXT.multiply(fill.fee, rate))
    return held, cash
