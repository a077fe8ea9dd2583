"""Rules across the trades of one user: what only one of them may have, and whom they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tradepool.audit.report import Severity
from tradepool.audit.rules.registry import Fault, Level, Repair, rule
from tradepool.audit.rules.trade_rules import AHEAD_MAX_US
from tradepool.model.kinds import Role
from tradepool.model.trade import Trade
from tradepool.store.plan import claims_of

__all__ = [
    "RELATED_AFTER_US",
    "Related",
    "duplicate_fill",
    "duplicate_key",
    "duplicate_order",
    "order_of",
    "related_cycle",
    "related_foreign",
    "related_missing",
]

RELATED_AFTER_US = 12 * AHEAD_MAX_US
"""A trade may name one that is still on its way for an hour."""


class Related(NamedTuple):
    """A trade that names another, that one's user (None: there is no such trade), and the way from it."""

    trade: Trade
    owner: str | None
    way: Sequence[str]
    """Ids from the named trade on, up to the first that names none or was on the way before."""


@rule(Severity.CRITICAL, Level.DEEP, Repair.QUARANTINE)
def duplicate_key(first: Trade, second: Trade) -> Iterator[Fault]:
    """An idempotency key belongs to one trade of its user."""
    if first.idempotency_key is not None and first.idempotency_key == second.idempotency_key:
        yield second.trade_id, f"idempotency key {first.idempotency_key!r} as {first.trade_id}"


@rule(Severity.CRITICAL, Level.DEEP, Repair.QUARANTINE)
def duplicate_fill(first: Trade, second: Trade) -> Iterator[Fault]:
    """A venue's fill is booked once; the same trade twice: within one trade."""
    if first.trade_id == second.trade_id:
        ids = [fill.fill_id for fill in first.fills]
        twice = sorted({fill_id for fill_id in ids if ids.count(fill_id) > 1})
    else:
        twice = sorted(claims_of(first) & claims_of(second))
    for name in twice:
        yield second.trade_id, f"fill {name.replace(chr(0x1F), '/')} is booked by {first.trade_id} as well"


@rule(Severity.WARNING, Level.DEEP)
def duplicate_order(first: Trade, second: Trade) -> Iterator[Fault]:
    """A venue's order opens one trade; it may close one and open the next, or close several."""
    for name in sorted(order_of(first) & order_of(second)):
        yield second.trade_id, f"order {name.replace(chr(0x1F), '/')} has opened {first.trade_id} as well"


@rule(Severity.WARNING, Level.DEEP)
def related_missing(related: Related, now_us: int) -> Iterator[Fault]:
    """The trade that another names is there; it may come up to an hour later."""
    if related.owner is None and related.trade.updated_at <= now_us - RELATED_AFTER_US:
        yield related.trade.trade_id, f"names {related.trade.related_trade_id}, and there is no such trade"


@rule(Severity.CRITICAL, Level.DEEP, Repair.QUARANTINE)
def related_foreign(related: Related) -> Iterator[Fault]:
    """Trades name trades of their own user."""
    if related.owner not in (None, related.trade.user_id):
        yield related.trade.trade_id, f"names {related.trade.related_trade_id}, a trade of {related.owner}"


@rule(Severity.CRITICAL, Level.DEEP, Repair.QUARANTINE)
def related_cycle(related: Related) -> Iterator[Fault]:
    """From no trade a way of relations leads back to it."""
    if related.trade.trade_id in related.way:
        yield related.trade.trade_id, f"leads back to itself by {', '.join(related.way)}"


def order_of(trade: Trade) -> set[str]:
    """The venue's orders whose fills have opened the trade."""
    place = _place(trade)
    return {
        f"{place}\x1f{fill.order_id}" for fill in trade.fills if fill.order_id and fill.role is Role.ENTRY
    }


def _place(trade: Trade) -> str:
    return f"{trade.exchange}\x1f{trade.account_id}\x1f{trade.symbol}"
