"""What a caller can ask of the pool, as plain messages that survive JSON.

Values inside (`trade`, `fill`, prices, tokens) are as loose as the caller gave them; `intake` and
`changes` check them. `command_id` names the request for good: sent twice, it is applied once.
"""

from __future__ import annotations

from typing import Any

from tradepool.model.token_commands import CommandBase, TokenCommand

__all__ = [
    "AddFill",
    "AddTrade",
    "CloseTrade",
    "Command",
    "PoolCommand",
    "QuarantineTrade",
    "TradeCommand",
    "UpdateTrade",
    "UpdateTradePnl",
]


class AddTrade(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="add_trade"):
    """Record a new trade, and with `reserve` set tokens of its account aside for it in the same commit.

    `reserve` holds `asset`, `amount`, `ttl_s` and, unless the trade's id is to be it, `key`.
    """

    trade: dict[str, Any]
    reserve: dict[str, Any] | None = None


class AddFill(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="add_fill"):
    """Book an entry or exit fill of a trade."""

    trade_id: str
    fill: dict[str, Any]
    user_id: str | None = None


class CloseTrade(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="close_trade"):
    """Book one exit fill of `amount`, or of everything still open."""

    trade_id: str
    price: Any
    fee: Any = 0
    fee_currency: str | None = None
    amount: Any = None
    at: Any = None


class UpdateTrade(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="update_trade"):
    """Set mutable fields, or make a legal status move."""

    trade_id: str
    changes: dict[str, Any]
    expected_version: int | None = None


class UpdateTradePnl(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="update_trade_pnl"):
    """Store the PnL that somebody else reported, and the status that comes with it."""

    trade_id: str
    pnl: Any
    status: str = "completed"


class QuarantineTrade(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="quarantine"):
    """Let nothing change a trade any more, for `reason`; or (None) release it."""

    trade_id: str
    reason: str | None


TradeCommand = AddTrade | AddFill | CloseTrade | UpdateTrade | UpdateTradePnl
Command = TradeCommand | TokenCommand
"""What the fleet's messages carry."""
PoolCommand = Command | QuarantineTrade
"""What a pool applies: also what only its operators and audits ask for."""
