"""Loose dictionaries in, checked trades out: the only place that accepts what bots and old files write."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import reduce
from typing import Any

import msgspec

from tradepool.errors import InvalidTrade, quoted
from tradepool.model.digests import digest_of
from tradepool.model.fields import JSON_BYTES_MAX, json_group, reject, text
from tradepool.model.fill_intake import fill_from_dict, read_fill
from tradepool.model.kinds import Market, Role, Side
from tradepool.model.loose_fields import (
    CHANGEABLE_NAMES,
    CLAIM_NAMES,
    EXIT_NAMES,
    JSON_NAMES,
    NEVER_NONE,
    PARSERS,
    is_record,
    sorted_out,
)
from tradepool.model.money import ZERO, plus
from tradepool.model.opening import Claim, open_books
from tradepool.model.symbols import coins_of
from tradepool.model.times import check_time
from tradepool.model.trade import DERIVED_NAMES, Fill, Trade

__all__ = ["JSON_NAMES", "checked_changes", "fill_from_dict", "trade_from_dict", "trade_from_record"]

_CHANGEABLE_CURE = "one of " + ", ".join(CHANGEABLE_NAMES)
_REQUIRED = ("user_id", "symbol", "side", "amount")
# Bound once: in a loop over trades a member looked up on its class costs more than the comparison.
_BUY, _SPOT, _LINEAR, _INVERSE = Side.BUY, Market.SPOT, Market.LINEAR, Market.INVERSE
_NOTE = text(JSON_BYTES_MAX)
_PAYLOAD_ENCODER = msgspec.json.Encoder(order="deterministic")


def trade_from_dict(fields: object, *, now_us: int, trade_id: str | None = None, applied: str = "") -> Trade:
    """A new trade (version 1) from what a caller gave: a dictionary, or a Trade.

    Its id is `trade_id`, else the caller's, else "". Unknown fields are kept in `extra`; what is said
    to have happened is booked; times that nobody gave are `now_us`. `payload` stands for what was
    given, so that the same request can be told from another one; `applied` is the short id of the
    request.

    Raises: InvalidTrade naming the field; IllegalTransition and IdempotencyConflict for fills that
    cannot be booked.
    """
    given, group = sorted_out(fields)
    fills = _read_fills(given) if "fills" in given else ()
    own = {name: PARSERS[name](name, value) for name, value in given.items()}
    if fills:
        _move_superseded(own, group["extra"], fills)
    group = json_group(group)
    _check_objects(group)
    own_id = own.pop("trade_id", "")
    payload = _payload(own, fills, group)
    said = {name: own.pop(name) for name in CLAIM_NAMES if name in own}
    _complete(own, said, fills, now_us)
    own.update(group, trade_id=trade_id or own_id, payload=payload, applied=applied, updated_at=now_us)
    trade = Trade(**own)
    if trade.related_trade_id and trade.related_trade_id == trade.trade_id:
        reject("related_trade_id", "is the trade itself", trade.trade_id, "another trade of the user")
    if said.get("fee_currency") != trade.base_currency:
        # A venue that takes the entry's fee in the base coin takes the exit's in the quote.
        said.setdefault("exit_fee_currency", said.get("fee_currency"))
    memory = _memory_of(fields) if is_record(fields) else _Memory()
    claim = Claim(fills=fills, is_record=is_record(fields), is_booked=bool(memory.payload), **said)
    return _with_memory(open_books(trade, claim), memory)


class _Memory(msgspec.Struct, frozen=True):
    """What a pool remembers of a trade beside what happened to it; a Trade made by hand has no payload."""

    payload: str = ""
    notes: tuple[str, ...] = ()
    pnl_as_of: int = 0
    field_times: dict[str, int] = {}
    quarantine: str | None = None


def _memory_of(fields: object) -> _Memory:
    try:
        memory = msgspec.convert(fields, _Memory, from_attributes=True)
    except msgspec.ValidationError as problem:
        raise InvalidTrade(f"not a trade's record: {problem}") from problem
    if memory.notes:
        json_group({"notes": [_NOTE("notes", note) for note in memory.notes]})
    if memory.quarantine is not None:
        _NOTE("quarantine", memory.quarantine)
    for name, time_us in memory.field_times.items():
        if name not in CHANGEABLE_NAMES:
            reject("field_times", "names a field that no update changes", name, _CHANGEABLE_CURE)
        check_time("field_times", time_us)
    check_time("pnl_as_of", memory.pnl_as_of)
    return memory


def _with_memory(trade: Trade, memory: _Memory) -> Trade:
    if not memory.payload:
        return trade
    return msgspec.structs.replace(
        trade,
        notes=memory.notes,
        pnl_as_of=memory.pnl_as_of,
        field_times=memory.field_times,
        quarantine=memory.quarantine,
    )


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
    for given_name, value in changes.items():
        name = CHANGEABLE_NAMES.get(given_name)
        if name is None:
            reject(quoted(given_name), "cannot be changed by an update", value, _CHANGEABLE_CURE)
        elif name in JSON_NAMES:
            checked[name] = _json_object(name, value)
        elif value is not None:
            checked[name] = PARSERS[name](name, value)
        elif name in NEVER_NONE:
            reject(name, "missing", value, "a value")
        else:
            checked[name] = None
    return checked


def _read_fills(given: dict[str, Any]) -> tuple[Fill, ...]:
    fills, side = given.pop("fills"), given.get("side")
    if not isinstance(fills, list | tuple):
        reject("fills", "not a list", fills, "a list of fills")
    trade_side = PARSERS["side"]("side", side) if side is not None else None
    return tuple(read_fill(fill, side=trade_side) for fill in fills)


def _move_superseded(parsed: dict[str, Any], extra: dict[str, Any], fills: tuple[Fill, ...]) -> None:
    """Exit fills say more than one exit price does, and entry fills more than one fee."""
    if any(fill.role is Role.EXIT for fill in fills):
        extra.update({name: parsed.pop(name) for name in EXIT_NAMES if parsed.get(name)})
    if parsed.get("fee") and any(fill.role is Role.ENTRY for fill in fills):
        extra["fee"] = parsed.pop("fee")


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
    return digest_of(_PAYLOAD_ENCODER.encode([parsed, fills, group]))


def _complete(own: dict[str, Any], said: dict[str, Any], fills: tuple[Fill, ...], now_us: int) -> None:
    """Add to the trade's own fields what follows from the others."""
    if fills and "amount" not in own:
        own["amount"] = _entered_amount(fills)
    for name in _REQUIRED:
        if name not in own:
            reject(name, "missing", None, "every trade has a user_id, symbol, side and amount")
    own["market"] = _market(own)
    if "created_at" not in own:
        told = [said.get("opened_at"), said.get("closed_at"), *[fill.at for fill in fills]]
        times = [time for time in told if time]
        own["created_at"] = min(times) if times else now_us


def _entered_amount(fills: tuple[Fill, ...]) -> Decimal:
    """What the entries come to; one that is told twice counts once, as it is booked once."""
    entries = {fill.fill_id or n: fill.amount for n, fill in enumerate(fills) if fill.role is Role.ENTRY}
    return reduce(plus, entries.values(), ZERO)


def _market(own: dict[str, Any]) -> Market:
    given: Market | None = own.get("market")
    name, side = own["symbol"], own["side"]
    coins = coins_of(name)
    if (given is None or given is _LINEAR) and coins.settle == coins.base:
        given = _INVERSE
    if given is None:
        # The old bots marked what they sold short as sell; spot is long only.
        given = _LINEAR if ":" in name else _SPOT if side is _BUY else Market.MARGIN
    if given is _SPOT and side is not _BUY:
        cure = "a buy; market margin, linear or inverse to sell short"
        reject("side", "spot is long only", side, cure)
    if given is _INVERSE and "contract_size" not in own:
        reject("contract_size", "missing", None, "an inverse contract needs its contract_size")
    return given
