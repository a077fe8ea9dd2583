"""Trades and fills for tests, with as little said as a test can say."""

from __future__ import annotations

from typing import Any

from tradepool.model.commands import AddFill, AddTrade, UpdateTrade, UpdateTradePnl
from tradepool.model.fill_intake import fill_from_dict
from tradepool.model.intake import trade_from_dict
from tradepool.model.trade import Fill, Trade

NOW_US = 1_750_000_000_000_000


def trade_fields(**fields: Any) -> dict[str, Any]:
    """The dictionary of a bot that bought 2 ETH at 2000, changed by `fields`."""
    basic = {"user_id": "ann", "symbol": "ETH/USDT", "side": "buy", "amount": "2", "price": "2000"}
    return basic | fields


def new_trade(trade_id: str = "t1", **fields: Any) -> Trade:
    """What intake makes of `trade_fields`."""
    return trade_from_dict(trade_fields(**fields), now_us=NOW_US, trade_id=trade_id)


def fill_fields(fill_id: str, role: str, amount: object, price: object, **fields: Any) -> dict[str, Any]:
    """A fill's dictionary."""
    return {"fill_id": fill_id, "role": role, "amount": amount, "price": price} | fields


def new_fill(fill_id: str, role: str, amount: object, price: object, **fields: Any) -> Fill:
    """A fill at NOW_US, or at the time in `fields`."""
    return fill_from_dict(fill_fields(fill_id, role, amount, price, **fields), now_us=NOW_US)


def add_command(command_id: str = "add", as_of: int = NOW_US, **fields: Any) -> AddTrade:
    """The command that adds `trade_fields`."""
    return AddTrade(command_id=command_id, as_of=as_of, trade=trade_fields(**fields))


def fill_command(command_id: str, fill: dict[str, Any], as_of: int = NOW_US) -> AddFill:
    """The command that books `fill`."""
    return AddFill(command_id=command_id, as_of=as_of, trade_id="t1", fill=fill)


def update_command(command_id: str, as_of: int = NOW_US, **changes: Any) -> UpdateTrade:
    """The command that sets `changes`; a version in `expected_version` is its own."""
    expected = changes.pop("expected_version", None)
    return UpdateTrade(
        command_id=command_id, as_of=as_of, trade_id="t1", changes=changes, expected_version=expected
    )


def pnl_command(
    command_id: str, pnl: object, as_of: int = NOW_US, status: str = "completed"
) -> UpdateTradePnl:
    """The command that reports `pnl`."""
    return UpdateTradePnl(command_id=command_id, as_of=as_of, trade_id="t1", pnl=pnl, status=status)
