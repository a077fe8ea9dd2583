"""Loose dictionaries in, checked trades out: the only place that accepts what bots and old files write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

from tradepool.errors import InvalidTrade, quoted
from tradepool.model.fields import (
    choice,
    contract_size,
    json_group,
    leverage,
    non_negative,
    positive,
    reject,
    symbol,
    text,
)
from tradepool.model.fill_intake import SIDE_ALIASES, fee_fields, fill_from_dict, read_fill
from tradepool.model.kinds import Market, Role, Side, Source
from tradepool.model.money import parse_decimal
from tradepool.model.opening import Claim, open_books
from tradepool.model.status_words import status_word
from tradepool.model.times import iso_time, parse_time
from tradepool.model.trade import DERIVED_NAMES, Fill, Trade

__all__ = ["JSON_NAMES", "checked_changes", "fill_from_dict", "trade_from_dict", "trade_from_record"]

JSON_NAMES = ("signals", "signal_metrics", "market_conditions")
"""The fields that hold the caller's JSON."""

_Parser = Callable[[str, object], Any]

_TEXT = text()
_CHANGEABLE: dict[str, _Parser] = {
    "amount": positive,
    "price": positive,
    "leverage": leverage,
    "funding": parse_decimal,
    "interest": parse_decimal,
    "stop_loss": non_negative,
    "take_profit": non_negative,
    "liquidation_price": non_negative,
    "deposit": non_negative,
    "strategy": _TEXT,
    "symbol_group": _TEXT,
    "success_label": _TEXT,
    "close_reason": _TEXT,
    "related_trade_id": text(64),
    "status": status_word,
}
_NEVER_NONE = frozenset({"amount", "leverage", "funding", "interest", "status"})

_TRADE_FIELDS: dict[str, _Parser] = _CHANGEABLE | {
    "trade_id": text(64),
    "user_id": text(128),
    "symbol": symbol,
    "side": choice(Side, SIDE_ALIASES),
    "amount_ordered": positive,
    "account_id": _TEXT,
    "exchange": _TEXT,
    # ccxt's words for derivatives leave open which coin they settle in: the symbol tells.
    "market": choice(Market, {"swap": Market.LINEAR, "future": Market.LINEAR, "futures": Market.LINEAR}),
    "idempotency_key": text(128),
    "contract_size": contract_size,
    "source": choice(Source, {}),
    "pnl_reported": parse_decimal,
    "roi_reported": parse_decimal,
    "created_at": parse_time,
}
_CLAIM_FIELDS: dict[str, _Parser] = {
    "filled": non_negative,
    "closed": non_negative,
    "fee": parse_decimal,
    "fee_currency": text(32),
    "exit_price": positive,
    "exit_fee": parse_decimal,
    "exit_fee_currency": text(32),
    "opened_at": parse_time,
    "closed_at": parse_time,
}
_EXIT_NAMES = ("exit_price", "exit_fee", "exit_fee_currency")
_PARSERS = _TRADE_FIELDS | _CLAIM_FIELDS
_GIVEN_NAMES = frozenset([*_PARSERS, *JSON_NAMES, "fills", "extra"])
# A record's exit_fee is a sum over its fills, a bot's the fee of the exit it tells.
_RECORD_ONLY = (frozenset(Trade.__struct_fields__) - _GIVEN_NAMES) | {*DERIVED_NAMES, "exit_fee"}
_FINAL_WORDS = frozenset({"completed", "closed"})
_PAYLOAD_ENCODER = msgspec.json.Encoder(order="deterministic")


def trade_from_dict(fields: object, *, now_us: int, trade_id: str | None = None) -> Trade:
    """A new trade (version 1) from what a caller gave: a dictionary, or a Trade.

    Its id is `trade_id`, else the caller's, else "". Unknown fields are kept in `extra`; what is said
    to have happened is booked; times that nobody gave are `now_us`. `payload` stands for what was
    given, so that the same request can be told from another one.

    Raises: InvalidTrade naming the field; IllegalTransition and IdempotencyConflict for fills that
    cannot be booked.
    """
    given, extra = _sorted_out(fields)
    claimed_fills = _read_fills(given.pop("fills", None), given.get("side"))
    parsed = {name: _PARSERS[name](name, value) for name, value in given.items() if name in _PARSERS}
    _move_superseded(parsed, extra, claimed_fills)
    group = json_group({name: given[name] for name in JSON_NAMES if name in given} | {"extra": extra})
    _check_objects(group)
    payload = _payload(parsed, claimed_fills, group)
    trade = _blank_trade(parsed, group, claimed_fills, now_us)
    trade = msgspec.structs.replace(
        trade, trade_id=trade_id or parsed.get("trade_id", ""), payload=payload, updated_at=now_us
    )
    if trade.related_trade_id and trade.related_trade_id == trade.trade_id:
        reject("related_trade_id", "is the trade itself", trade.trade_id, "another trade of the user")
    return open_books(trade, _claim(parsed, claimed_fills, trade))


def trade_from_record(fields: Mapping[str, Any]) -> Trade:
    """The trade that `Trade.to_dict` wrote, field for field; unknown fields are kept in `extra`.

    Raises: InvalidTrade when it is not one.
    """
    stored = {name: value for name, value in fields.items() if name not in DERIVED_NAMES}
    unknown = {name: value for name, value in stored.items() if name not in Trade.__struct_fields__}
    try:
        trade = msgspec.convert(stored, Trade)
    except (msgspec.ValidationError, RecursionError, ValueError) as problem:
        raise InvalidTrade(f"not a trade's record: {problem}") from problem
    return msgspec.structs.replace(trade, extra=trade.extra | json_group(unknown)) if unknown else trade


def checked_changes(changes: object) -> dict[str, Any]:
    """The changes of an update by field, parsed; None clears an optional field.

    Raises: InvalidTrade naming a field that is unknown, fixed for life, or breaks its rule.
    """
    if not isinstance(changes, dict):
        reject("changes", "not a dictionary", changes, "new values by field name")
    checked: dict[str, Any] = {}
    for name, value in changes.items():
        if name in JSON_NAMES:
            checked[name] = _json_object(name, value)
        elif name not in _CHANGEABLE:
            cure = "one of " + ", ".join([*_CHANGEABLE, *JSON_NAMES])
            reject(quoted(name), "cannot be changed by an update", value, cure)
        elif value is not None:
            checked[name] = _CHANGEABLE[name](name, value)
        elif name in _NEVER_NONE:
            reject(name, "missing", value, "a value")
        else:
            checked[name] = None
    return checked


def _sorted_out(fields: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given under names we know, and the rest; None is not given."""
    if isinstance(fields, Trade):
        fields = fields.to_dict()
    if not isinstance(fields, dict):
        reject("trade", "not a dictionary", fields, "a Trade or its fields by name")
    if "schema_version" in fields:
        fields = {name: value for name, value in fields.items() if name not in _RECORD_ONLY}
        fields |= {name: fields.get(name) or None for name in ("trade_id", "created_at")}
    known = fee_fields(fee_fields(fields, "fee"), "exit_fee")
    given: dict[str, Any] = {}
    extra = _extra(known.pop("extra", None))
    for name, value in known.items():
        if not isinstance(name, str):
            reject("trade", "has a name that is not a text", name, "text names")
        if name not in _GIVEN_NAMES:
            extra[name] = value
        elif value is not None:
            given[name] = value
    _take_aliases(given, extra)
    return given, extra


def _extra(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        reject("extra", "not a dictionary", value, "your own fields by name")
    return dict(value)


def _take_aliases(given: dict[str, Any], extra: dict[str, Any]) -> None:
    """The old bots' names; what cannot be taken over stays in `extra`."""
    if given.get("created_at") is None and extra.get("timestamp") is not None:
        time_us = parse_time("timestamp", extra["timestamp"])
        # As text: the number of µs alone would be read again, and an early one taken for milliseconds.
        given["created_at"] = iso_time(time_us)
        if extra["timestamp"] == time_us and isinstance(extra["timestamp"], int):
            del extra["timestamp"]
    if extra.get("pnl") is not None:
        pnl = parse_decimal("pnl", extra.pop("pnl"))
        word = given.get("status")
        # Old files write 0 for "not known yet".
        if pnl or (isinstance(word, str) and word.strip().lower() in _FINAL_WORDS):
            given.setdefault("pnl_reported", pnl)
    if "roi" in extra and isinstance(extra["roi"], int | float | Decimal):
        _take_roi(given, extra)


def _take_roi(given: dict[str, Any], extra: dict[str, Any]) -> None:
    try:
        roi = parse_decimal("roi", extra["roi"])
    except InvalidTrade:
        return
    if not roi:
        # Old files write 0 for "not known yet", beside gains and losses too.
        return
    given.setdefault("roi_reported", roi)
    del extra["roi"]


def _read_fills(fills: object, side: object) -> tuple[Fill, ...]:
    if fills is None:
        return ()
    if not isinstance(fills, list | tuple):
        reject("fills", "not a list", fills, "a list of fills")
    trade_side = _TRADE_FIELDS["side"]("side", side) if side is not None else None
    return tuple(read_fill(fill, side=trade_side) for fill in fills)


def _move_superseded(parsed: dict[str, Any], extra: dict[str, Any], fills: tuple[Fill, ...]) -> None:
    """Exit fills say more than one exit price does."""
    if any(fill.role is Role.EXIT for fill in fills):
        extra.update({name: parsed.pop(name) for name in _EXIT_NAMES if parsed.get(name)})


def _check_objects(group: dict[str, Any]) -> None:
    for name, value in group.items():
        if not isinstance(value, dict):
            reject(name, "not an object", value, "a dictionary with text keys")


def _json_object(name: str, value: object) -> dict[str, Any]:
    group = json_group({name: {} if value is None else value})
    _check_objects(group)
    copy: dict[str, Any] = group[name]
    return copy


def _payload(parsed: dict[str, Any], fills: tuple[Fill, ...], group: dict[str, Any]) -> str:
    given = {name: value for name, value in parsed.items() if name != "trade_id"}
    return blake2b(_PAYLOAD_ENCODER.encode([given, fills, group]), digest_size=8).hexdigest()


def _blank_trade(
    parsed: dict[str, Any], group: dict[str, Any], fills: tuple[Fill, ...], now_us: int
) -> Trade:
    """The trade with every given field, before anything has happened to it."""
    fields = {name: value for name, value in parsed.items() if name in _TRADE_FIELDS and name != "status"}
    if fills and "amount" not in fields:
        fields["amount"] = sum((fill.amount for fill in fills if fill.role is Role.ENTRY), Decimal(0))
    for name in ("user_id", "symbol", "side", "amount"):
        if name not in fields:
            reject(name, "missing", None, "every trade has a user_id, symbol, side and amount")
    fields["market"] = _market(fields)
    if "created_at" not in fields:
        times = [fill.at for fill in fills if fill.at] + [parsed.get("opened_at"), parsed.get("closed_at")]
        fields["created_at"] = min((time for time in times if time), default=now_us)
    return Trade(**fields, **group)


def _market(fields: dict[str, Any]) -> Market:
    given: Market | None = fields.get("market")
    name, side = fields["symbol"], fields["side"]
    base, _, rest = name.partition("/")
    settles_in_base = rest.partition(":")[2].partition("-")[0] == base
    if given in (None, Market.LINEAR) and settles_in_base:
        given = Market.INVERSE
    if given is None:
        # The old bots marked what they sold short as sell; spot is long only.
        given = Market.LINEAR if ":" in name else Market.SPOT if side is Side.BUY else Market.MARGIN
    if given is Market.SPOT and side is Side.SELL:
        cure = "a buy; market margin, linear or inverse to sell short"
        reject("side", "spot is long only", side, cure)
    if given is Market.INVERSE and "contract_size" not in fields:
        reject("contract_size", "missing", None, "an inverse contract needs its contract_size")
    return given


def _claim(parsed: dict[str, Any], fills: tuple[Fill, ...], trade: Trade) -> Claim:
    said = {name: parsed[name] for name in _CLAIM_FIELDS if name in parsed}
    coin = parsed.get("fee_currency")
    if coin != trade.base_currency:
        # A venue that takes the entry's fee in the base coin takes the exit's in the quote.
        said.setdefault("exit_fee_currency", coin)
    return Claim(status=parsed.get("status"), fills=fills, **said)
