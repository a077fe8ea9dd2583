"""A trade as freqtrade has it, in a backtest export or in its database, as a trade of the pool.

It gets the fills of its `orders`, or, where there are none, one entry fill at `open_rate` and one exit fill
at `close_rate`. Fees are rate x notional, in quote. A trade still open has its entry only. What freqtrade
computed itself is kept beside the pool's own figures: `profit_abs` as `pnl_reported`, `profit_ratio` as
`roi_reported`; what no field of the pool holds, and the profit as written, in `extra`.

* **Rounding.** Freqtrade has binary floats of up to 21 decimal places; the model keeps 18. Amounts, rates and
  fees are rounded half even.
* **Parts.** The exits of a closed trade that miss its entries by float noise are made to meet them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import reduce
from typing import Any, NamedTuple

from tradepool.errors import InvalidTrade
from tradepool.importers.rows import Defaults, TradeRow, json_value, money_text, round_noise, source_id
from tradepool.model.kinds import Market, Role, Side, Source
from tradepool.model.money import CONTEXT, ZERO, parse_decimal
from tradepool.model.times import parse_time

__all__ = ["USER", "Origin", "trade_row"]

USER = "freqtrade"
"""Owner of the trades when the caller names none: an export names no user."""

_NOISE = Decimal("1e-9")
"""Relative difference of two sums of the same floats that is no difference."""
_MAPPED = frozenset(
    {
        "pair", "is_open", "is_short", "amount", "leverage", "orders", "open_rate", "close_rate", "fee_open",
        "fee_close", "funding_fees", "open_date", "close_date", "open_timestamp", "close_timestamp",
        "profit_ratio", "exit_reason", "sell_reason", "stop_loss_abs", "liquidation_price", "exchange",
        "strategy", "status",
    }
)  # fmt: skip


class Origin(NamedTuple):
    """Where a trade stands: its id follows from that, its owner, its pair and its opening."""

    strategy: str
    run: str
    number: str
    source: Source = Source.BACKTEST


def trade_row(
    trade: Any,
    position: str,
    origin: Origin,
    defaults: Defaults,
    rounded: Callable[[Decimal], Decimal] = round_noise,
) -> TradeRow:
    """The row of a trade as a backtest export has it, its profit `rounded`.

    Beside the fields of an export it may have an `exchange` and the `status` of an order without a fill; an
    order its `ft_fee_base`, and what is `open` of an entry.

    Raises: InvalidTrade naming what is wrong.
    """
    if not isinstance(trade, dict):
        raise InvalidTrade("not an object", field="trade", value=trade, cure="one JSON object for each trade")
    user = defaults.user or USER
    opened_at = _time(trade, "open")
    trade_id = source_id("ft:", user, *origin[:3], str(trade.get("pair")), str(opened_at))
    fills = _fills(trade, trade_id, opened_at)
    mapped = {
        "trade_id": trade_id,
        "user_id": user,
        "symbol": trade.get("pair"),
        "exchange": trade.get("exchange") or defaults.exchange,
        "account_id": defaults.account,
        "market": _market(trade).value,
        "side": Side.SELL.value if trade.get("is_short") else Side.BUY.value,
        "amount": _ordered(trade, fills),
        "price": _number(trade, "open_rate"),
        "leverage": _number(trade, "leverage", Decimal(1)),
        "fills": [_in_text(fill) for fill in fills],
        "funding": _number(trade, "funding_fees", ZERO),
        "stop_loss": _number(trade, "stop_loss_abs", ZERO) or None,
        "liquidation_price": _number(trade, "liquidation_price", ZERO) or None,
        "source": str(defaults.source or origin.source),
        "strategy": origin.strategy or None,
        "created_at": opened_at,
        "opened_at": opened_at if fills else None,
        "extra": {"freqtrade": _rest(trade)},
        **_outcome(trade, fills, rounded),
    }
    known_at = max([fill["at"] for fill in fills], default=opened_at)
    return TradeRow(position=position, trade=_in_text(mapped), as_of=known_at)


def _outcome(
    trade: Mapping[str, Any], fills: list[dict[str, Any]], rounded: Callable[[Decimal], Decimal]
) -> dict[str, Any]:
    """What freqtrade says about the reasons of a trade, and about its end."""
    tag = trade.get("enter_tag")
    signals = {"signals": {"enter_tag": tag}} if tag else {}
    if not fills:
        return signals | {"status": trade["status"]}
    if trade.get("is_open"):
        return signals
    return {
        **signals,
        "pnl_reported": rounded(_exact_number(trade, "profit_abs")),
        "roi_reported": _number(trade, "profit_ratio"),
        "close_reason": trade.get("exit_reason") or trade.get("sell_reason"),
    }


def _fills(trade: Mapping[str, Any], trade_id: str, opened_at: int) -> list[dict[str, Any]]:
    """The fills, entries first, with amounts, prices and fees as Decimal."""
    orders = trade.get("orders")
    if isinstance(orders, list) and orders:
        return _order_fills(trade, orders, trade_id)
    amount = _number(trade, "amount")
    fills = [_fill(trade, Role.ENTRY, amount, _number(trade, "open_rate"), opened_at, f"{trade_id}:entry")]
    if not trade.get("is_open"):
        closed_at = _time(trade, "close")
        fills.append(
            _fill(trade, Role.EXIT, amount, _number(trade, "close_rate"), closed_at, f"{trade_id}:exit")
        )
    return fills


def _order_fills(trade: Mapping[str, Any], orders: list[Any], trade_id: str) -> list[dict[str, Any]]:
    filled = [(n, o) for n, o in enumerate(orders) if isinstance(o, dict) and o.get("order_filled_timestamp")]
    # An order's own id is not unique: every backtest counts from 1 again.
    fills = [_order_fill(trade, order, f"{trade_id}:{n}") for n, order in filled]
    fills.sort(key=lambda fill: (fill["role"] != Role.ENTRY, fill["at"]))
    entered, exited = _total(fills, Role.ENTRY), _total(fills, Role.EXIT)
    if not entered and not (trade.get("status") and not exited):
        raise InvalidTrade(
            "no filled entry order", field="orders", value=orders, cure="leave out trades never opened"
        )
    held_fees = reduce(CONTEXT.add, (fill["fee"] for fill in fills if "fee_currency" in fill), ZERO)
    missed = CONTEXT.subtract(CONTEXT.subtract(entered, held_fees), exited)
    if not trade.get("is_open") and exited and abs(missed) <= CONTEXT.multiply(entered, _NOISE):
        fills[-1]["amount"] = CONTEXT.add(fills[-1]["amount"], missed)
    return fills


def _order_fill(trade: Mapping[str, Any], order: Mapping[str, Any], fill_id: str) -> dict[str, Any]:
    role = Role.ENTRY if order.get("ft_is_entry") else Role.EXIT
    amount = _number(order, "filled" if order.get("filled") else "amount")
    price = _number(order, "safe_price" if order.get("safe_price") else "average")
    at = parse_time("order_filled_timestamp", order["order_filled_timestamp"])
    order_id = {"order_id": str(order["order_id"])} if order.get("order_id") else {}
    fill = _fill(trade, role, amount, price, at, fill_id) | order_id
    if role is Role.ENTRY and (taken := _number(order, "ft_fee_base", ZERO)) > 0:
        fill |= {"fee": taken, "fee_currency": str(trade.get("pair")).partition("/")[0]}
    return fill


def _ordered(trade: Mapping[str, Any], fills: list[dict[str, Any]]) -> Decimal:
    """What was entered, and what entry orders that are open may yet fill; of an unfilled trade its amount."""
    orders = trade.get("orders")
    listed = [order for order in orders if isinstance(order, dict)] if isinstance(orders, list) else []
    opens = reduce(CONTEXT.add, (_number(order, "open", ZERO) for order in listed), ZERO)
    return CONTEXT.add(_total(fills, Role.ENTRY), opens) or _number(trade, "amount")


def _fill(
    trade: Mapping[str, Any], role: Role, amount: Decimal, price: Decimal, at: int, fill_id: str
) -> dict[str, Any]:
    rate = _exact_number(trade, "fee_open" if role is Role.ENTRY else "fee_close", ZERO)
    fee = round_noise(CONTEXT.multiply(CONTEXT.multiply(amount, price), rate))
    return {"fill_id": fill_id, "role": role.value, "amount": amount, "price": price, "fee": fee, "at": at}


def _total(fills: list[dict[str, Any]], role: Role) -> Decimal:
    return reduce(CONTEXT.add, (fill["amount"] for fill in fills if fill["role"] == role), ZERO)


def _market(trade: Mapping[str, Any]) -> Market:
    """Futures pairs name their settlement; a short or leveraged trade without it is on margin."""
    mode = str(trade.get("trading_mode")).lower()
    if ":" in str(trade.get("pair")) or mode == "futures":
        return Market.LINEAR
    if mode == "margin":
        return Market.MARGIN
    leveraged = trade.get("is_short") or _number(trade, "leverage", Decimal(1)) != 1
    return Market.MARGIN if leveraged else Market.SPOT


def _time(trade: Mapping[str, Any], name: str) -> int:
    """The `open` or `close` time in µs; older exports have it as a date only."""
    stamp, date = f"{name}_timestamp", f"{name}_date"
    field = stamp if trade.get(stamp) is not None else date
    if trade.get(field) is None:
        raise InvalidTrade("missing", field=stamp, cure="ms since 1970")
    return parse_time(field, trade[field])


def _number(source: Mapping[str, Any], field: str, default: Decimal | None = None) -> Decimal:
    return round_noise(_exact_number(source, field, default))


def _exact_number(source: Mapping[str, Any], field: str, default: Decimal | None = None) -> Decimal:
    value = source.get(field)
    if value is None and default is not None:
        return default
    if isinstance(value, Decimal) and value.is_finite():
        return value
    return parse_decimal(field, value)


def _rest(trade: Mapping[str, Any]) -> dict[str, Any]:
    """What no field of the pool holds, and the profit as written."""
    rest = {k: v for k, v in trade.items() if k not in _MAPPED and v is not None}
    profit = rest.pop("profit_abs", None)
    exact = {"profit_abs": str(profit)} if profit is not None else {}
    return {**json_value("trade", rest), **exact}


def _in_text(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: money_text(v) if isinstance(v, Decimal) else v for k, v in record.items() if v is not None}
