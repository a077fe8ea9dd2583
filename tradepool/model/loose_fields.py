"""A caller's dictionary sorted out: the names we parse, the old bots' names, and all the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from tradepool.errors import InvalidTrade
from tradepool.model.fields import (
    choice,
    contract_size,
    leverage,
    non_negative,
    positive,
    reject,
    symbol,
    text,
)
from tradepool.model.fill_intake import SIDE_ALIASES, fee_fields
from tradepool.model.kinds import Market, Side, Source
from tradepool.model.money import parse_decimal
from tradepool.model.status_words import status_word
from tradepool.model.times import moment_of, parse_time
from tradepool.model.trade import DERIVED_NAMES, Trade

__all__ = [
    "CHANGEABLE_NAMES",
    "CLAIM_NAMES",
    "EXIT_NAMES",
    "JSON_NAMES",
    "NEVER_NONE",
    "PARSERS",
    "is_record",
    "sorted_out",
]

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
NEVER_NONE = frozenset({"amount", "leverage", "funding", "interest", "status"})
"""Of those, what has no empty form."""

_OWN_FIELDS: dict[str, _Parser] = _CHANGEABLE | {
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
EXIT_NAMES = ("exit_price", "exit_fee", "exit_fee_currency")
"""What is said of one exit."""
PARSERS = _OWN_FIELDS | _CLAIM_FIELDS
"""Every field that is parsed on its own."""
CLAIM_NAMES = ("status", *_CLAIM_FIELDS)
"""What is said to have happened: it is booked, the other fields are taken over as they are."""
# From a name to our own text of it: a record is made much faster from names that are the same objects.
CHANGEABLE_NAMES = {name: name for name in (*_CHANGEABLE, *JSON_NAMES)}
"""What an update can set."""
_KNOWN_NAMES = {name: name for name in (*PARSERS, *JSON_NAMES, "fills")}
# A record's exit_fee is a sum over its fills, a bot's the fee of the exit it tells.
_RECORD_ONLY = (frozenset(Trade.__struct_fields__) - {*_KNOWN_NAMES, "extra"}) | {*DERIVED_NAMES, "exit_fee"}
_FINAL_WORDS = frozenset({"completed", "closed"})


def sorted_out(fields: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given under names we parse, and the JSON fields with all the rest as `extra`.

    None is not given. Raises: InvalidTrade naming the field.
    """
    known = _as_given(fields)
    extra = _extra(known.get("extra"))
    given: dict[str, Any] = {}
    for name, value in known.items():
        if name in _KNOWN_NAMES:
            if value is not None:
                given[_KNOWN_NAMES[name]] = value
        elif not isinstance(name, str):
            reject("trade", "has a name that is not a text", name, "text names")
        elif name != "extra":
            extra[name] = value
    if extra:
        _take_aliases(given, extra)
    objects = {name: given.pop(name) for name in JSON_NAMES if name in given}
    return given, objects | {"extra": extra}


def is_record(fields: object) -> bool:
    """Whether a pool wrote `fields`, rather than a bot."""
    return isinstance(fields, Trade) or (isinstance(fields, dict) and "schema_version" in fields)


def _as_given(fields: object) -> Mapping[Any, Any]:
    if isinstance(fields, Trade):
        fields = fields.to_dict()
    if not isinstance(fields, dict):
        reject("trade", "not a dictionary", fields, "a Trade or its fields by name")
    if "schema_version" in fields:
        fields = {name: value for name, value in fields.items() if name not in _RECORD_ONLY}
        fields |= {name: fields.get(name) or None for name in ("trade_id", "created_at")}
    return fee_fields(fields, "fee", "exit_fee")


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
        # The number of µs alone would be read again, and an early one taken for milliseconds.
        given["created_at"] = moment_of(time_us)
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
