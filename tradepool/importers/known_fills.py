"""What a pool has of a market already: which fills are booked, and which position is open."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from tradepool.errors import InvalidTrade
from tradepool.importers.ccxt_rows import ORDER_TOTAL
from tradepool.model.kinds import Market, Role, Side
from tradepool.model.money import ZERO, minus, plain, plus
from tradepool.model.round_trips import FLIPPED, Execution
from tradepool.model.trade import Fill, Trade

__all__ = ["IMPORTED", "KnownMarket", "not_held"]

IMPORTED = "ccxt:"
"""Begins the id of every trade that an import grouped from fills."""


class _KnownFill(NamedTuple):
    side: Side
    amount: Decimal
    price: Decimal
    is_sale_of_held: bool
    """Whether the pool took of a sale what the account held."""


@dataclass
class KnownMarket:
    """What a pool has of one market of one account: fills, and the trades that are open."""

    fills: dict[str, _KnownFill] = field(default_factory=dict)
    orders: dict[str, Decimal] = field(default_factory=dict)
    opened_by: dict[str, str] = field(default_factory=dict)
    """From the fill that opened a trade to the trade's id."""
    booked_in: dict[str, str] = field(default_factory=dict)
    """From a fill to the id of the trade that it is part of."""
    begun: dict[Side, Trade] = field(default_factory=dict)
    """The imported trades that are still open; one, but for an account in hedge mode."""
    stranger: str | None = None
    """An open trade that no import made."""
    first_at: int = 0
    last_at: int = 0
    imported_until: int = 0
    """When the last fill was made that an import grouped."""
    trades: list[Trade] = field(default_factory=list)

    def add(self, trade: Trade) -> None:
        """Take note of a trade of this market."""
        self.trades.append(trade)
        own = f"{trade.trade_id}:"
        fills = [fill for fill in trade.fills if not fill.fill_id.startswith(own)]
        for fill in fills:
            self._add_fill(trade, fill)
        if fills:
            self.opened_by[fills[0].fill_id] = trade.trade_id
        is_imported = trade.trade_id.startswith(IMPORTED)
        if is_imported and fills:
            self.imported_until = max(self.imported_until, *(fill.at for fill in fills))
        if trade.is_open and trade.open_amount:
            if is_imported:
                self.begun[trade.side] = trade
            else:
                self.stranger = trade.trade_id

    def begun_with(self, side: Side | None) -> Trade | None:
        """The open position of `side`; of any side where the account has but one."""
        if side is not None:
            return self.begun.get(side)
        return max(self.begun.values(), key=lambda trade: trade.created_at, default=None)

    def of(self, side: Side | None) -> KnownMarket:
        """What is known of the positions of one side, of an account that keeps longs and shorts apart."""
        if side is None:
            return self
        known = KnownMarket()
        for trade in self.trades:
            if trade.side is side:
                known.add(trade)
        return known

    def has(self, execution: Execution) -> bool:
        """Whether the execution is booked, by its id or by its order.

        Raises: InvalidTrade when the same id names another fill, or only a part of it is booked.
        """
        known = self.fills.get(execution.fill_id)
        if known is None:
            return self.has_otherwise(execution)
        rest = self.fills.get(execution.fill_id + FLIPPED)
        booked = known.amount if rest is None else plus(known.amount, rest.amount)
        if known.is_sale_of_held and (rest_unheld := minus(execution.amount, booked)) > ZERO:
            raise not_held(rest_unheld)
        if (known.side, booked, known.price) != (execution.side, execution.amount, execution.price):
            cure = "a fill never changes: export the list again, or import it under another --account"
            raise InvalidTrade("booked differently", field="fill_id", value=execution.fill_id, cure=cure)
        return True

    def has_otherwise(self, execution: Execution) -> bool:
        """Whether a fill is booked with its order as a whole, or an order by its fills. Raises: as `has`."""
        if execution.order_id is None or execution.fill_id in self.fills:
            return False
        if not execution.fill_id.startswith(ORDER_TOTAL):
            return ORDER_TOTAL + execution.order_id in self.fills
        booked = self.orders.get(execution.order_id)
        if booked is not None and booked < execution.amount:
            cure = "import the order's other fills (fetch_my_trades)"
            raise InvalidTrade(
                "only some of its fills are booked", field="id", value=execution.order_id, cure=cure
            )
        return booked is not None

    def _add_fill(self, trade: Trade, fill: Fill) -> None:
        opposite = Side.SELL if trade.side is Side.BUY else Side.BUY
        side = trade.side if fill.role is Role.ENTRY else opposite
        is_sale = trade.market is Market.SPOT and fill.role is Role.EXIT
        self.fills[fill.fill_id] = _KnownFill(side, fill.amount, fill.price, is_sale)
        self.booked_in[fill.fill_id] = trade.trade_id
        if fill.order_id is not None:
            self.orders[fill.order_id] = plus(self.orders.get(fill.order_id, ZERO), fill.amount)
        self.first_at = min(self.first_at or fill.at, fill.at)
        self.last_at = max(self.last_at, fill.at)


def not_held(amount: Decimal) -> InvalidTrade:
    """What is wrong with an exit of `amount` that no entry explains."""
    return InvalidTrade(
        "closes more than this history opened",
        field="amount",
        value=plain(amount),
        cure="import the earlier fills too; a short sale on margin: --market margin",
    )
