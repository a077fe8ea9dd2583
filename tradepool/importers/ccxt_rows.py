"""One row of ccxt's unified structures, a fill (`fetch_my_trades`) or an order, as what was executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import InvalidTrade
from tradepool.importers.rows import json_value, round_noise, source_id
from tradepool.model.fields import choice, positive, reject, symbol, text
from tradepool.model.kinds import Side
from tradepool.model.money import CONTEXT, ZERO, canonical, minus, parse_decimal, plus, round_ratio
from tradepool.model.round_trips import Execution
from tradepool.model.symbols import coins_of
from tradepool.model.times import parse_time

__all__ = ["ORDER_TOTAL", "CcxtRow", "read_row"]

ORDER_TOTAL = "order:"
"""Begins the fill id that stands for all fills of an order, where only the order is known."""

_FURTHER_FEE = "#fee"
_FINAL = frozenset({"closed", "canceled", "cancelled", "expired", "rejected"})
_TOLD = frozenset(
    {
        "id", "order", "symbol", "side", "amount", "price", "cost", "timestamp", "datetime", "fee", "fees",
        "info", "average", "filled", "remaining", "status", "trades", "lastTradeTimestamp",
        "lastUpdateTimestamp",
    }
)  # fmt: skip
_HEDGE_NAMES = ("positionSide", "posSide", "holdSide")
_HEDGE_SIDES = {"long": Side.BUY, "short": Side.SELL}
_SIZE_NAMES = ("contractSize", "contract_size", "contractVal", "ctVal")
_FUNDING = "funding"
_ID_CHARS_MAX = 120

_id, _currency, _side = text(_ID_CHARS_MAX), text(32), choice(Side, {})


class CcxtRow(NamedTuple):
    """A row that was read; without executions when nothing of its order was filled."""

    symbol: str
    executions: tuple[Execution, ...]
    size: Decimal | None
    """The contract size that the row names."""
    cost: Decimal | None
    """What the row says the executions' amount is worth."""
    about: dict[str, Any]
    opens_with: Side | None = None
    """The side that the row is of, where the account keeps longs and shorts apart."""
    idle: str = ""
    """Why there are no executions."""


class _Fill(NamedTuple):
    """What is common to a fill and to the sum of an order's fills."""

    fill_id: str
    order_id: str | None
    amount: Decimal
    price: Decimal
    at: int


def read_row(row: Any) -> CcxtRow:
    """What a fill or an order of ccxt's says was executed.

    Raises: Rejected naming what is missing or wrong; an order still open whose fills are not listed.
    """
    if not isinstance(row, dict):
        reject("row", "not an object", row, "one of ccxt's fills or orders")
    name = symbol("symbol", row.get("symbol"))
    if any(str(told).lower() == _FUNDING for told in _told(row, ("execType",))):
        return CcxtRow(name, (), None, None, {}, idle="a payment of funding, nothing was executed")
    is_order = "filled" in row or "remaining" in row
    filled = _filled(row) if is_order else None
    if filled is not None and not filled:
        status = row.get("status") or "an unknown status"
        return CcxtRow(name, (), None, None, {}, idle=f"nothing of this order was filled ({status})")
    return CcxtRow(
        symbol=name,
        executions=_of_order(row, name, filled) if filled is not None else _parted(row, _fill(row, name)),
        size=_size(row),
        cost=_number(row, "cost"),
        opens_with=_opens_with(row),
        about=json_value("row", {k: v for k, v in row.items() if k not in _TOLD and v is not None}),
    )


def _filled(order: Mapping[str, Any]) -> Decimal:
    filled, amount = _number(order, "filled"), _number(order, "amount")
    remaining = _number(order, "remaining")
    if filled is None and amount is not None:
        if remaining is not None:
            filled = minus(amount, remaining)
        elif order.get("status") == "closed":
            filled = amount
    if filled is None or filled < ZERO:
        reject("filled", "missing", order.get("filled"), "what of the order was filled")
    return filled


def _of_order(order: Mapping[str, Any], name: str, filled: Decimal) -> tuple[Execution, ...]:
    listed = _listed(order, name)
    total = ZERO
    for execution in listed:
        total = plus(total, execution.amount)
    if listed and total == filled:
        return listed
    if str(order.get("status")).lower() not in _FINAL and _number(order, "remaining") != ZERO:
        cure = "import it when it is done, or its fills (fetch_my_trades)"
        reject("status", "still open, and partly filled", order.get("status"), cure)
    order_id = _id("id", _as_text(order.get("id")))
    at = _time(order, "lastTradeTimestamp", "lastUpdateTimestamp", "timestamp", "datetime")
    price = _price(order, name, filled, first="average")
    return _parted(order, _Fill(ORDER_TOTAL + order_id, order_id, filled, price, at))


def _listed(order: Mapping[str, Any], name: str) -> tuple[Execution, ...]:
    """The fills inside the order; what they leave out is the order's. Some venues list only their ids."""
    trades = order.get("trades")
    if not isinstance(trades, list) or not all(
        isinstance(trade, dict) and trade.get("id") and trade.get("amount") for trade in trades
    ):
        return ()
    whole = [{"side": order.get("side"), **trade, "order": order.get("id")} for trade in trades]
    return tuple(part for trade in whole for part in _parted(trade, _fill(trade, name)))


def _fill(row: Mapping[str, Any], name: str) -> _Fill:
    amount = positive("amount", _rounded(row.get("amount")))
    at = _time(row, "timestamp", "datetime")
    order = row.get("order")
    order_id = None if order in (None, "") else _id("order", _as_text(order))
    price = _price(row, name, amount)
    given = row.get("id")
    if given in (None, ""):
        facts = f"{name} {order_id} {at} {row.get('side')} {amount} {price}"
        given = source_id("ccxt:", facts)
    return _Fill(_id("id", _as_text(given)), order_id, amount, price, at)


def _price(row: Mapping[str, Any], name: str, amount: Decimal, *, first: str = "price") -> Decimal:
    """What `first` says, else what the cost says, else the price of the order."""
    told, cost = _number(row, first), _number(row, "cost")
    if not told and cost and not coins_of(name).settle:
        told = round_ratio(CONTEXT.divide(cost, amount))
    return positive(first, told) if told else positive("price", _rounded(row.get("price")))


def _parted(row: Mapping[str, Any], fill: _Fill) -> tuple[Execution, ...]:
    """One execution, or as many as the fee has coins: equal parts of the amount, with a fee each."""
    fees = _fees(row)
    side = _side("side", row.get("side"))
    share = round_noise(CONTEXT.divide(fill.amount, Decimal(len(fees))))
    parts = [
        Execution(
            fill_id=fill.fill_id if number == 1 else f"{fill.fill_id}{_FURTHER_FEE}{number}",
            side=side,
            amount=share,
            price=fill.price,
            fee=fee,
            fee_currency=currency,
            at=fill.at,
            order_id=fill.order_id,
        )
        for number, (currency, fee) in enumerate(fees, 1)
    ]
    if len(parts) > 1:
        taken = canonical(CONTEXT.multiply(share, Decimal(len(parts) - 1)))
        parts[0] = msgspec.structs.replace(parts[0], amount=minus(fill.amount, taken))
    if not all(part.amount > ZERO for part in parts):
        reject("fees", "too many coins for the amount", len(fees), "one fee in one coin")
    return tuple(parts)


def _fees(row: Mapping[str, Any]) -> list[tuple[str | None, Decimal]]:
    """What was taken of each coin, the one without a fee if there is none."""
    listed, single = row.get("fees"), row.get("fee")
    taken = _taken(listed) if isinstance(listed, list) else {}
    if not taken and single is not None:
        taken = _taken([single])
    return list(taken.items()) or [(None, ZERO)]


def _taken(told: list[Any]) -> dict[str | None, Decimal]:
    taken: dict[str | None, Decimal] = {}
    for fee in told:
        parts = fee if isinstance(fee, dict) else {"cost": fee}
        cost, currency = _number(parts, "cost", "fee"), parts.get("currency")
        if cost:
            coin = None if currency is None else _currency("fee_currency", currency)
            taken[coin] = plus(taken.get(coin, ZERO), cost)
    return {coin: fee for coin, fee in taken.items() if fee}


def _size(row: Mapping[str, Any]) -> Decimal | None:
    told = next(_told(row, _SIZE_NAMES), None)
    return None if told is None else positive("contract_size", _rounded(told))


def _opens_with(row: Mapping[str, Any]) -> Side | None:
    words = (_HEDGE_SIDES.get(str(told).lower()) for told in _told(row, _HEDGE_NAMES))
    return next((side for side in words if side is not None), None)


def _told(row: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Any]:
    """What the row, or the venue's own form of it, says under one of `names`."""
    info = row.get("info")
    for place in (row, info if isinstance(info, dict) else {}):
        yield from (place[name] for name in names if place.get(name))


def _number(row: Mapping[str, Any], name: str, field: str = "") -> Decimal | None:
    value = row.get(name)
    return None if value in (None, "") else parse_decimal(field or name, _rounded(value))


def _rounded(value: Any) -> Any:
    """A JSON number without the binary noise behind what the model keeps."""
    return round_noise(value) if isinstance(value, Decimal) else value


def _time(row: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if row.get(name) not in (None, "", 0, "0"):
            return parse_time(name, row[name])
    raise InvalidTrade("missing", field=names[-2], value=None, cure="ms since 1970")


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
