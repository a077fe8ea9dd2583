"""An open trade as a row of the book."""

from __future__ import annotations

from tradepool.model.money import CONTEXT
from tradepool.model.trade import Direction, Market, Trade
from tradepool.pnl.position import Position

__all__ = ["position_of"]


def position_of(trade: Trade) -> Position:
    """The open part of `trade` as a row of the book; its cost includes the entry fees not yet matched."""
    is_long = trade.direction is Direction.LONG
    entry = CONTEXT.multiply(trade.open_cost, trade.contract_size)
    # An inverse long is worth minus its contracts over the price, a linear one plus its amount times it.
    is_positive = is_long != (trade.market is Market.INVERSE)
    return Position(
        trade_id=trade.trade_id,
        user_id=trade.user_id,
        currency=trade.settlement_currency,
        symbol=trade.symbol,
        market=trade.market.value,
        amount=trade.open_amount if is_long else CONTEXT.minus(trade.open_amount),
        cost=CONTEXT.add(entry if is_positive else CONTEXT.minus(entry), trade.open_fee),
        contract_size=trade.contract_size,
    )
