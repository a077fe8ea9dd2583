"""The audit rules: pure functions from a trade or a state to findings.

Each rule is registered with its severity; its docstring says what a finding means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tradepool.audit.report import Finding, Severity
from tradepool.errors import Rejected
from tradepool.model import pnl
from tradepool.model.ledger import Ledger, broken_rules
from tradepool.model.trade import Status, Trade

__all__ = ["TRADE_RULES", "check_counters", "check_ledger", "check_trade"]

TradeRule = Callable[[Trade], Iterator[str]]
TRADE_RULES: dict[str, tuple[Severity, TradeRule]] = {}

_NEVER_FILLED = frozenset({Status.REJECTED, Status.PENDING, Status.SUBMITTED})


def _trade_rule(name: str, severity: Severity) -> Callable[[TradeRule], TradeRule]:
    def register(rule: TradeRule) -> TradeRule:
        TRADE_RULES[name] = (severity, rule)
        return rule

    return register


def check_trade(trade: Trade) -> Iterator[Finding]:
    """Every finding about one trade on its own."""
    for name, (severity, rule) in TRADE_RULES.items():
        for detail in rule(trade):
            yield Finding(rule=name, severity=severity, subject=trade.trade_id, detail=detail)


@_trade_rule("quantities", Severity.CRITICAL)
def _quantities(trade: Trade) -> Iterator[str]:
    """0 ≤ closed ≤ filled ≤ amount holds for every trade."""
    if not 0 <= trade.closed <= trade.filled <= trade.amount:
        yield f"closed {trade.closed}, filled {trade.filled}, amount {trade.amount}"


@_trade_rule("status_without_fill", Severity.CRITICAL)
def _status_without_fill(trade: Trade) -> Iterator[str]:
    """A status that says nothing was filled contradicts a filled quantity."""
    if trade.status in _NEVER_FILLED and trade.filled:
        yield f"{trade.status} with {trade.filled} filled"


@_trade_rule("time_order", Severity.WARNING)
def _time_order(trade: Trade) -> Iterator[str]:
    """Created ≤ opened ≤ closed holds for every trade."""
    times = [t for t in (trade.created_at, trade.opened_at, trade.closed_at) if t is not None]
    if times != sorted(times):
        yield f"created {trade.created_at}, opened {trade.opened_at}, closed {trade.closed_at} (µs)"


@_trade_rule("recomputed_figures", Severity.CRITICAL)
def _recomputed_figures(trade: Trade) -> Iterator[str]:
    """The stored quantities, costs and PnL are what the trade's own fills come to."""
    try:
        again = pnl.recompute(trade)
    except Rejected as refusal:
        yield f"its fills could never have been booked: {refusal}"
        return
    for field in pnl.DERIVED_FIELDS:
        stored, recomputed = getattr(trade, field), getattr(again, field)
        if stored != recomputed:
            yield f"{field}: stored {stored}, its fills come to {recomputed}"


@_trade_rule("unpriced_fee", Severity.WARNING)
def _unpriced_fee(trade: Trade) -> Iterator[str]:
    """A fee in a third coin without a rate is missing from the PnL."""
    if trade.fee_unpriced:
        yield f"fees in {', '.join(sorted(trade.fees))} are not all in the PnL"


def check_ledger(ledger: Ledger) -> Iterator[Finding]:
    """Balances hold together: nothing negative, nothing reserved twice, nothing frozen."""
    for detail in broken_rules(ledger):
        yield Finding(
            rule="ledger",
            severity=Severity.WARNING if detail.endswith("frozen") else Severity.CRITICAL,
            subject=f"{ledger.user_id}/{ledger.account_id}",
            detail=detail,
        )


def check_counters(user_id: str, counters: Mapping[str, int], fold: Mapping[str, int]) -> Iterator[Finding]:
    """A user's stored counters equal the fold over his trades."""
    for name in sorted(fold.keys() | counters.keys()):
        if fold.get(name, 0) != counters.get(name, 0):
            yield Finding(
                rule="summary_fold",
                severity=Severity.CRITICAL,
                subject=user_id,
                detail=f"{name}: counter {counters.get(name, 0)}, trades come to {fold.get(name, 0)}",
            )
