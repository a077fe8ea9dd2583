"""One execution at a venue."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model.kinds import Role
from tradepool.model.money import ZERO
from tradepool.model.plain_form import plain_fields

__all__ = ["Fill"]


class Fill(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A part of the entry or of the exit that was executed; unique per exchange, account and symbol."""

    fill_id: str
    """The venue's trade id."""
    role: Role
    amount: Decimal
    """Base units, or contracts; > 0."""
    price: Decimal
    """Quote per base; > 0."""
    fee: Decimal = ZERO
    """What the venue took; a rebate is negative."""
    fee_currency: str | None = None
    """None is the settlement currency."""
    at: int = 0
    """µs since 1970; 0 lets the pool put the time of booking."""
    order_id: str | None = None
    fee_price: Decimal | None = None
    """Settlement units per fee coin, where the fee was paid in a third coin and its rate is known."""

    def to_dict(self) -> dict[str, Any]:
        """The fill as JSON-able values, decimals as positional text."""
        return plain_fields(self)
