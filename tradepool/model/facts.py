"""What the statistics remember of a trade: a few numbers and labels, read out of its stored JSON.

Money is in *fine units*, integers of 1e-18: every amount a caller can give is one, their sums are exact
without a context, and an integer takes a third of a Decimal's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.counters import closed_outcome, reported_verdict, to_fine_units
from tradepool.model.kinds import Market, Source, Status, TradeOutcome
from tradepool.model.labels import Labels, Traits, labels_of
from tradepool.model.money import ZERO, to_units
from tradepool.model.trade import Trade

__all__ = ["Fact", "fact_of"]

_FINE_PER_UNIT = 10**10


class Fact(msgspec.Struct, frozen=True, kw_only=True, order=True, gc=False):
    """One trade of a user. Closed ones sort by time, equal times by id."""

    at: int
    """When it was closed, µs; 0 while it is not."""
    trade_id: str
    pnl: int
    """`Trade.pnl` rounded to 8 places, as it is counted."""
    outcome: TradeOutcome | None
    """None of a trade that is not completed."""
    began: int
    """When it was opened, or else created, µs."""
    held_us: int
    """From then until it was closed; never negative, whatever a caller has told."""
    reported: int | None
    reported_sign: int
    """As what its reported result counts (`counters.reported_verdict`): 1 a win, -1 a loss, 0 a draw."""
    deposit: int
    version: int
    labels: Labels


def fact_of(body: bytes) -> Fact:
    """The fact of the trade whose JSON is `body`. Raises: Corrupt when it is none."""
    try:
        found = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise Corrupt(f"a stored trade cannot be read: {problem}") from problem
    pnl, reported = _pnl_of(found), found.pnl_reported
    outcome = closed_outcome(found.status, found.outcome, pnl)
    began = found.created_at if found.opened_at is None else found.opened_at
    at = 0 if outcome is None else found.updated_at if found.closed_at is None else found.closed_at
    return Fact(
        at=at,
        trade_id=found.trade_id,
        pnl=to_units(pnl) * _FINE_PER_UNIT,
        outcome=outcome,
        began=began,
        held_us=max(at - began, 0),
        reported=None if reported is None else to_fine_units(reported),
        reported_sign=0 if reported is None else _sign(reported_verdict(reported, found.roi_reported)),
        deposit=0 if found.deposit is None else to_fine_units(found.deposit),
        version=found.version,
        labels=labels_of(_traits(found, is_closed=outcome is not None)),
    )


class _Outline(msgspec.Struct, frozen=True, gc=False):
    """The fields of a trade that a fact is made of: half the time of decoding all of them."""

    trade_id: str
    symbol: str
    side: str
    market: str = Market.SPOT.value
    exchange: str = "unknown"
    version: int = 1
    closed: Decimal = ZERO
    pnl_net: Decimal = ZERO
    pnl_reported: Decimal | None = None
    roi_reported: Decimal | None = None
    status: Status = Status.PENDING
    outcome: TradeOutcome | None = None
    close_reason: str | None = None
    source: str = Source.REAL.value
    strategy: str | None = None
    signals: msgspec.Raw = msgspec.Raw(b"{}")
    deposit: Decimal | None = None
    created_at: int = 0
    opened_at: int | None = None
    closed_at: int | None = None
    updated_at: int = 0


_DECODER = msgspec.json.Decoder(_Outline)
# The rule is the trade's own; what it reads is in the outline.
_pnl_of: Callable[[_Outline], Decimal] = vars(Trade)["pnl"].fget


def _traits(found: _Outline, *, is_closed: bool) -> Traits:
    return Traits(
        found.source,
        found.market,
        found.symbol,
        found.exchange,
        found.side,
        found.strategy,
        found.close_reason or "" if is_closed else None,
        bytes(found.signals),
    )


def _sign(number: Decimal) -> int:
    return (number > 0) - (number < 0)
