"""What a caller can ask of the pool, as plain messages that survive JSON.

Values inside (`trade`, `fill`, prices, tokens) are as loose as the caller gave them; `intake` and
`changes` check them. `command_id` names the request for good: sent twice, it is applied once.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "AddFill",
    "AddTrade",
    "CloseTrade",
    "Command",
    "TradeCommand",
    "UpdateTokens",
    "UpdateTrade",
    "UpdateTradePnl",
]


class _Base(msgspec.Struct, frozen=True, kw_only=True):
    command_id: str
    as_of: int
    """When the caller knew this, µs since 1970; decides between two changes of the same field."""


class AddTrade(_Base, frozen=True, kw_only=True, tag_field="op", tag="add_trade"):
    """Record a new trade."""

    trade: dict[str, Any]


class AddFill(_Base, frozen=True, kw_only=True, tag_field="op", tag="add_fill"):
    """Book an entry or exit fill of a trade."""

    trade_id: str
    fill: dict[str, Any]
    user_id: str | None = None


class CloseTrade(_Base, frozen=True, kw_only=True, tag_field="op", tag="close_trade"):
    """Book one exit fill of `amount`, or of everything still open."""

    trade_id: str
    price: Any
    fee: Any = 0
    fee_currency: str | None = None
    amount: Any = None
    at: Any = None


class UpdateTrade(_Base, frozen=True, kw_only=True, tag_field="op", tag="update_trade"):
    """Set mutable fields, or make a legal status move."""

    trade_id: str
    changes: dict[str, Any]
    expected_version: int | None = None


class UpdateTradePnl(_Base, frozen=True, kw_only=True, tag_field="op", tag="update_trade_pnl"):
    """Store the PnL that somebody else reported, and the status that comes with it."""

    trade_id: str
    pnl: Any
    status: str = "completed"


class UpdateTokens(_Base, frozen=True, kw_only=True, tag_field="op", tag="update_tokens"):
    """Take over a venue's snapshot of free balances: `{asset: amount}` or a list of assets."""

    user_id: str
    account_id: str = "default"
    tokens: dict[str, Any] | list[Any]
    complete: bool = False


TradeCommand = AddTrade | AddFill | CloseTrade | UpdateTrade | UpdateTradePnl
Command = TradeCommand | UpdateTokens
