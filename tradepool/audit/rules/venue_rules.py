"""Rules that hold a venue's own figures against the pool's."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from tradepool.audit.report import Severity
from tradepool.audit.rules.registry import Fault, Level, rule
from tradepool.model.money import CONTEXT, ZERO, plain

__all__ = [
    "PRICE_TOLERANCE",
    "QUANTITY_TOLERANCE",
    "Held",
    "Told",
    "venue_average_price",
    "venue_balance",
    "venue_quantity",
]

QUANTITY_TOLERANCE = Decimal("1e-8")
"""How far two quantities may be apart, as a part of the larger one: venues round."""
PRICE_TOLERANCE = Decimal("1e-4")
"""The same for average prices: venues round them, and some count fees in."""


class Told(NamedTuple):
    """A quantity as a venue tells it; a short position is negative. No price: it told none."""

    amount: Decimal
    price: Decimal | None = None


class Held(NamedTuple):
    """The same as the pool has it; `name` says whose and what it is."""

    name: str
    amount: Decimal
    price: Decimal | None = None


@rule(Severity.CRITICAL, Level.DIGEST)
def venue_quantity(ours: Held, told: Told) -> Iterator[Fault]:
    """The open trades of an account in a symbol come to the position that the venue tells."""
    if not _is_close(ours.amount, told.amount, QUANTITY_TOLERANCE):
        yield ours.name, f"{plain(ours.amount)} open, the venue has {plain(told.amount)}"


@rule(Severity.WARNING, Level.DIGEST)
def venue_average_price(ours: Held, told: Told) -> Iterator[Fault]:
    """Their average entry price is about the one that the venue tells."""
    if ours.price is None or told.price is None or not ours.amount or not told.amount:
        return
    if not _is_close(ours.price, told.price, PRICE_TOLERANCE):
        yield ours.name, f"entered at {plain(ours.price)} on average, the venue says {plain(told.price)}"


@rule(Severity.CRITICAL, Level.DIGEST)
def venue_balance(ours: Held, told: Told) -> Iterator[Fault]:
    """What the ledger has of an asset is what the venue tells."""
    if not _is_close(ours.amount, told.amount, QUANTITY_TOLERANCE):
        yield ours.name, f"{plain(ours.amount)} in the ledger, the venue has {plain(told.amount)}"


def _is_close(one: Decimal, other: Decimal, tolerance: Decimal) -> bool:
    apart = abs(CONTEXT.subtract(one, other))
    return apart <= CONTEXT.multiply(max(abs(one), abs(other), ZERO), tolerance)
