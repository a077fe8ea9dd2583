"""Which trades a question is about, and where each stands in a list."""

from __future__ import annotations

import msgspec

from tradepool.model.kinds import OPEN_STATUSES, Source, Status
from tradepool.model.trade import Trade

__all__ = ["Cursor", "TradeFilter"]

Cursor = tuple[int, str]
"""The place of a trade in a list by time: (created_at in µs, trade id)."""


class TradeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The trades that have every value given here; None admits all. `since` ≤ created_at < `until`, µs."""

    user_id: str | None = None
    symbol: str | None = None
    source: Source | None = None
    status: Status | None = None
    strategy: str | None = None
    since: int | None = None
    until: int | None = None

    def admits(self, trade: Trade) -> bool:
        """Whether `trade` is one of them."""
        return (
            self.user_id in (None, trade.user_id)
            and self.symbol in (None, trade.symbol)
            and self.source in (None, trade.source)
            and self.status in (None, trade.status)
            and self.strategy in (None, trade.strategy)
            and (self.since is None or trade.created_at >= self.since)
            and (self.until is None or trade.created_at < self.until)
        )

    @property
    def is_open(self) -> bool:
        """Whether all of them are open, so none is archived."""
        return self.status in OPEN_STATUSES

    @property
    def values(self) -> dict[str, str]:
        """The values that a trade's fields have to equal, by field."""
        given = {name: getattr(self, name) for name in _EQUAL}
        return {name: str(value) for name, value in given.items() if value is not None}


_EQUAL = ("user_id", "symbol", "source", "status", "strategy")
