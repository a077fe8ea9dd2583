"""What a caller gets back for one change."""

from __future__ import annotations

from typing import Literal

import msgspec

from tradepool.model.ledger import Reservation

__all__ = ["CommandOutcome", "Receipt"]

CommandOutcome = Literal["applied", "duplicate", "stale"]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted change.

    `trade_id` is the trade's id (for a token change, the ledger's user and account), `version` the
    record's version after the change, `position` the place in the shard's outbox at or before which
    the change stands, `durable` whether it is known to have been fsynced in the journal when the call
    returned: with `durability = "redis"` nobody looks, so it is False for a duplicate of a change, too,
    that was journaled long ago.
    """

    trade_id: str
    outcome: CommandOutcome
    version: int
    position: str
    durable: bool = False
    reservation: Reservation | None = None
    """What the change set aside, settled or gave back, as it stands after it."""
    expired: int = 0
    """How many reservations the change gave back because their time was over."""
