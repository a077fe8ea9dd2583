"""A trade as freqtrade writes its own: what its reports, plots and notebooks look for, in floats.

It is a view for those tools. Rates of fees are those of the fills together, amounts and prices their
sums and averages; what a trade that came from freqtrade said itself stands as it was said.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tradepool.model.fill import Fill
from tradepool.model.kinds import Role, Side
from tradepool.model.money import CONTEXT, ZERO
from tradepool.model.trade import Trade

__all__ = ["freqtrade_shape"]

_MS_US = 1000
_MINUTE_US = 60_000_000


def freqtrade_shape(trade: Trade) -> dict[str, Any] | None:
    """The trade as an item of a backtest's `trades`; None without a fill: freqtrade keeps no such trade."""
    if not trade.filled:
        return None
    shape = _terms(trade) | _course(trade) | _result(trade) | {"orders": _orders(trade)}
    return shape | _as_said(trade.extra.get("freqtrade"))


def _terms(trade: Trade) -> dict[str, Any]:
    stake = CONTEXT.multiply(trade.entry_cost, trade.contract_size)
    exit_value = CONTEXT.multiply(trade.exit_value, trade.contract_size)
    staked = _quotient(stake, trade.leverage)
    return {
        "pair": trade.symbol,
        "is_short": trade.side == Side.SELL,
        "leverage": float(trade.leverage),
        "stake_amount": staked,
        "max_stake_amount": staked,
        "amount": float(trade.open_amount if trade.is_open else trade.filled),
        "fee_open": _quotient(trade.entry_fee, stake),
        "fee_close": _quotient(trade.exit_fee, exit_value),
        "funding_fees": float(trade.funding),
        "initial_stop_loss_abs": _number(trade.stop_loss),
        "stop_loss_abs": _number(trade.stop_loss),
        "initial_stop_loss_ratio": None,
        "stop_loss_ratio": None,
        "liquidation_price": _number(trade.liquidation_price),
        "enter_tag": trade.signals.get("enter_tag"),
    }


def _course(trade: Trade) -> dict[str, Any]:
    opened = trade.created_at if trade.opened_at is None else trade.opened_at
    closed = None if trade.is_open else max(trade.closed_at or trade.updated_at, opened)
    prices = [fill.price for fill in trade.fills]
    return {
        "is_open": trade.is_open,
        "open_date": _date(opened),
        "open_timestamp": opened // _MS_US,
        "open_rate": _average(trade, trade.filled, trade.entry_cost),
        "close_date": None if closed is None else _date(closed),
        "close_timestamp": None if closed is None else closed // _MS_US,
        "close_rate": _average(trade, trade.closed, trade.exit_value),
        "trade_duration": None if closed is None else (closed - opened) // _MINUTE_US,
        "min_rate": float(min(prices)),
        "max_rate": float(max(prices)),
    }


def _result(trade: Trade) -> dict[str, Any]:
    """What was reported goes before what we compute: it is the other system's own figure."""
    reported, roi = trade.pnl_reported, trade.roi_reported
    return {
        "profit_abs": float(trade.pnl if reported is None else reported),
        "profit_ratio": _number(trade.roi_net if roi is None else roi) or 0.0,
        "exit_reason": trade.close_reason,
    }


def _orders(trade: Trade) -> list[dict[str, Any]]:
    return [_order(trade, fill) for fill in trade.fills]


def _order(trade: Trade, fill: Fill) -> dict[str, Any]:
    is_entry = fill.role == Role.ENTRY
    cost = CONTEXT.multiply(CONTEXT.multiply(fill.amount, fill.price), trade.contract_size)
    return {
        "amount": float(fill.amount),
        "filled": float(fill.amount),
        "safe_price": float(fill.price),
        "cost": float(cost),
        "ft_order_side": "buy" if is_entry == (trade.side == Side.BUY) else "sell",
        "ft_is_entry": is_entry,
        "order_filled_timestamp": fill.at // _MS_US,
        "order_id": fill.order_id or fill.fill_id,
    }


def _as_said(rest: object) -> dict[str, Any]:
    """What an import kept of freqtrade's own trade, its exact profit among it."""
    if not isinstance(rest, dict):
        return {}
    profit = rest.get("profit_abs")
    try:
        return rest | ({} if profit is None else {"profit_abs": float(profit)})
    except (TypeError, ValueError):
        return {}


def _average(trade: Trade, amount: Decimal, value: Decimal) -> float | None:
    if not amount or not value:
        return None
    return _quotient(amount, value) if trade.market == "inverse" else _quotient(value, amount)


def _quotient(numerator: Decimal, denominator: Decimal) -> float:
    return float(CONTEXT.divide(numerator, denominator)) if denominator else float(ZERO)


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _date(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat(sep=" ")
