"""The closed vocabularies of a trade."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["OPEN_STATUSES", "Direction", "Market", "Role", "Side", "Source", "Status", "TradeOutcome"]


class Side(StrEnum):
    """The opening side of a trade."""

    BUY = "buy"
    SELL = "sell"


class Direction(StrEnum):
    """Which way of the price earns."""

    LONG = "long"
    SHORT = "short"


class Market(StrEnum):
    """How the trade settles; an inverse contract pays in its base coin."""

    SPOT = "spot"
    MARGIN = "margin"
    LINEAR = "linear"
    INVERSE = "inverse"


class Role(StrEnum):
    """What a fill does to the position."""

    ENTRY = "entry"
    EXIT = "exit"


class TradeOutcome(StrEnum):
    """How a completed trade ended."""

    WIN = "win"
    LOSS = "loss"
    FLAT = "flat"


class Source(StrEnum):
    """Where a trade comes from; never mixed in a summary unless asked."""

    REAL = "real"
    PAPER = "paper"
    BACKTEST = "backtest"
    IMPORT = "import"


class Status(StrEnum):
    """Where a trade stands in its life; `lifecycle.TRANSITIONS` has the moves."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    PARTIALLY_CLOSED = "partially_closed"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"

    @property
    def code(self) -> str:
        """The letter that stands for the status in a record's header."""
        return _CODES[self]


_CODES = {
    Status.PENDING: "p",
    Status.SUBMITTED: "s",
    Status.PARTIALLY_FILLED: "f",
    Status.FILLED: "F",
    Status.PARTIALLY_CLOSED: "c",
    Status.COMPLETED: "C",
    Status.CANCELLED: "x",
    Status.EXPIRED: "e",
    Status.REJECTED: "r",
}

OPEN_STATUSES = frozenset(
    {Status.PENDING, Status.SUBMITTED, Status.PARTIALLY_FILLED, Status.FILLED, Status.PARTIALLY_CLOSED}
)
"""A trade in one of these is still alive."""
