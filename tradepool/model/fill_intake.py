"""A caller's fill, ours or ccxt's shape, as a Fill."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model.fields import choice, positive, reject, text
from tradepool.model.fill import Fill
from tradepool.model.kinds import Role, Side
from tradepool.model.money import ZERO, parse_decimal, plus
from tradepool.model.times import parse_time

__all__ = ["SIDE_ALIASES", "fee_fields", "fill_from_dict", "read_fill"]

SIDE_ALIASES = {"long": Side.BUY, "short": Side.SELL}

# ccxt's on the left; of two for one field the first that has a value counts, our own before them.
_NAMES = {"id": "fill_id", "order": "order_id", "timestamp": "at", "datetime": "at"}
_REQUIRED = ("role", "amount", "price")
_ID = text(128)
_COIN = text(32)
_PARSERS = {
    "fill_id": _ID,
    "order_id": _ID,
    "role": choice(Role, {}),
    "side": choice(Side, SIDE_ALIASES),
    "amount": positive,
    "price": positive,
    "fee": parse_decimal,
    "fee_currency": _COIN,
    "fee_price": positive,
    "at": parse_time,
}


def fill_from_dict(
    fields: object, *, now_us: int, side: Side | None = None, default_id: str | None = None
) -> Fill:
    """The fill in `fields`, checked; one without a time happened at `now_us`.

    ccxt's trade structure is understood: `id`, `order`, `timestamp`, `fee: {cost, currency}` or `fees`
    in one coin, and a `side` instead of a role when the trade's own `side` is given. A fill without an
    id gets `default_id`.

    Raises: InvalidTrade naming the field.
    """
    parsed = read_fill(fields, side=side)
    fill_id = parsed.fill_id or default_id
    if not fill_id:
        reject("fill_id", "missing", None, "the venue's trade id")
    return msgspec.structs.replace(parsed, fill_id=fill_id, at=parsed.at or now_us)


def read_fill(fields: object, *, side: Side | None) -> Fill:
    """The fill in `fields` with what the caller gave only: no id is "" and no time is 0.

    Raises: InvalidTrade naming the field.
    """
    if isinstance(fields, Fill):
        fields = fields.to_dict()
    if not isinstance(fields, dict):
        reject("fill", "not a dictionary", fields, "a Fill or its fields by name")
    given = fee_fields(_with_own_names(fields), "fee")
    parsed: dict[str, Any] = {"fill_id": ""}
    for name, parse in _PARSERS.items():
        value = given.get(name)
        if value is not None:
            parsed[name] = parse(name, value)
    fill_side = parsed.pop("side", None)
    if "role" not in parsed and fill_side is not None and side is not None:
        parsed["role"] = Role.ENTRY if fill_side is side else Role.EXIT
    for name in _REQUIRED:
        if name not in parsed:
            reject(name, "missing", None, "every fill has a role (entry or exit), an amount and a price")
    return Fill(**parsed)


def _with_own_names(fields: dict[Any, object]) -> dict[Any, object]:
    if not fields.keys().isdisjoint(_NAMES):
        fields = dict(fields)
        for name, own in _NAMES.items():
            if fields.get(own) is None:
                fields[own] = fields.get(name)
    if fields.get("fees") is not None and fields.get("fee") is None:
        fields = {**fields, "fee": _only_fee(fields["fees"])}
    return fields


def _only_fee(fees: object) -> dict[str, object] | None:
    """The one fee of ccxt's list of them; None where nothing was taken."""
    if not isinstance(fees, list | tuple | dict) or not all(isinstance(fee, dict) for fee in fees):
        reject("fees", "not a list of fees", fees, "a list of a cost and its currency each")
    by_coin: dict[str | None, Decimal] = {}
    for fee in fees:
        if fee.get("cost") is not None and (cost := parse_decimal("fees", fee["cost"])):
            coin = None if fee.get("currency") is None else _COIN("fees", fee["currency"])
            by_coin[coin] = plus(by_coin.get(coin, ZERO), cost)
    if len(by_coin) > 1:
        reject("fees", "in several coins", fees, "one fee in one coin; tradepool import splits such a fill")
    for coin, cost in by_coin.items():
        return {"cost": cost, "currency": coin}
    return None


def fee_fields(given: Mapping[Any, object], *names: str) -> Mapping[Any, object]:
    """`given` with ccxt's `{cost, currency}` under each of `names` taken apart.

    Raises: InvalidTrade for such a dictionary without a cost.
    """
    for name in names:
        fee = given.get(name)
        if isinstance(fee, dict):
            given = {**given, **_fee_parts(name, fee)}
    return given


def _fee_parts(name: str, fee: dict[Any, object]) -> dict[str, object]:
    if fee.get("cost") is None:
        reject(name, "has no cost", fee, "a number, or a cost and its currency")
    currency = {} if fee.get("currency") is None else {f"{name}_currency": fee["currency"]}
    return {name: fee["cost"], **currency}
