"""What an import needs of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tradepool.errors import Rejected
from tradepool.model.commands import Command
from tradepool.model.receipt import Receipt
from tradepool.model.trade import Trade
from tradepool.narrowing import Page

__all__ = ["Pool"]


class Pool(Protocol):
    """The calls of `TradePool` that bring trades in, and find what is there."""

    def apply(self, commands: Sequence[Command]) -> Sequence[Receipt | Rejected]:
        """Apply commands in order; a receipt or a refusal for each."""
        ...

    def get_trade(self, trade_id: str) -> Trade:
        """The trade as it stands."""
        ...

    def get_trades_by_user(self, user_id: str, *, limit: int, cursor: str | None) -> Page:
        """A page of the user's trades."""
        ...
