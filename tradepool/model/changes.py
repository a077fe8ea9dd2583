"""What a command does to a trade: decided here, purely; stored elsewhere, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition, VersionMismatch
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, TradeCommand, UpdateTrade, UpdateTradePnl
from tradepool.model.fields import json_group, reject
from tradepool.model.fill_intake import fill_from_dict
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.intake import JSON_NAMES, checked_changes, trade_from_dict
from tradepool.model.kinds import Role, Status
from tradepool.model.money import parse_decimal
from tradepool.model.pnl import book_fill, refigure
from tradepool.model.receipt import Outcome
from tradepool.model.status_moves import moved
from tradepool.model.status_words import Evidence, read_status, status_word
from tradepool.model.times import check_time, parse_time
from tradepool.model.trade import OPEN_STATUSES, Trade

__all__ = ["APPLIED_MAX", "Change", "add", "change"]

APPLIED_MAX = 32
"""Applied commands that a record remembers; older repeats are caught by their `as_of`."""

_FIGURE_NAMES = frozenset({"funding", "interest", "leverage"})
_ORDER_NAMES = frozenset({"price", "amount"})
_LATE_CURE = "add the fill, if the venue made one before; else leave it"
_CLOSE_CURES = {
    Status.COMPLETED: "leave it: it is closed; update_trade_pnl corrects a reported result",
    Status.REJECTED: "leave it: it never filled; add a new trade",
    Status.CANCELLED: _LATE_CURE,
    Status.EXPIRED: _LATE_CURE,
}
"""What helps who closes a trade that has nothing open, where filling it does not."""


class Change(NamedTuple):
    """What a command came to; `trade` is the new version, or the unchanged one unless applied."""

    outcome: Outcome
    trade: Trade


def add(command: AddTrade, *, trade_id: str, existing: Trade | None) -> Change:
    """The new trade of `command`, under `trade_id`.

    `existing` is the stored trade with that id or with the same idempotency key of the user: the same
    request again is a duplicate of it.

    Raises: IdempotencyConflict when `existing` came from another request; what `trade_from_dict` raises.
    """
    check_time("as_of", command.as_of)
    if existing is not None and _is_applied(existing, command.command_id):
        return Change("duplicate", existing)
    trade = trade_from_dict(command.trade, now_us=command.as_of, trade_id=trade_id)
    if existing is None:
        return Change("applied", msgspec.structs.replace(trade, applied=short_id(command.command_id)))
    if existing.payload == trade.payload:
        return Change("duplicate", existing)
    raise IdempotencyConflict(
        "another trade was added under this id or key",
        field="trade_id" if existing.trade_id == trade_id else "idempotency_key",
        value=existing.trade_id if existing.trade_id == trade_id else existing.idempotency_key,
        cure="send a request again unchanged, or under a new id",
    )


def change(trade: Trade, command: TradeCommand) -> Change:
    """`trade` after `command`, one version on; or what it found instead.

    `duplicate`: this command, this fill or this state is there already. `stale`: something newer is.

    Raises: InvalidTrade, IllegalTransition and IdempotencyConflict; then nothing may be written.
    """
    check_time("as_of", command.as_of)
    if _is_applied(trade, command.command_id):
        return Change("duplicate", trade)
    if isinstance(command, AddTrade):
        return add(command, trade_id=trade.trade_id, existing=trade)
    after = _after(trade, command)
    if after is None:
        return Change("stale", trade)
    if after is trade:
        return Change("duplicate", trade)
    return Change("applied", _stamped(after, command.command_id, command.as_of))


def _after(trade: Trade, command: AddFill | CloseTrade | UpdateTrade | UpdateTradePnl) -> Trade | None:
    match command:
        case AddFill():
            return _with_fill(trade, command)
        case CloseTrade():
            return _with_close(trade, command)
        case UpdateTrade():
            return _with_update(trade, command)
        case UpdateTradePnl():
            return _with_reported_pnl(trade, command)


def _is_applied(trade: Trade, command_id: str) -> bool:
    short, applied = short_id(command_id), trade.applied
    starts = range(0, len(applied), SHORT_ID_CHARS)
    return short in applied and any(applied.startswith(short, start) for start in starts)


def _stamped(trade: Trade, command_id: str, as_of: int) -> Trade:
    applied = (trade.applied + short_id(command_id))[-APPLIED_MAX * SHORT_ID_CHARS :]
    return msgspec.structs.replace(
        trade, version=trade.version + 1, updated_at=max(as_of, trade.updated_at), applied=applied
    )


def _with_fill(trade: Trade, command: AddFill) -> Trade:
    fill = fill_from_dict(
        command.fill,
        now_us=command.as_of,
        side=trade.side,
        default_id=_own_fill_id(trade, command),
    )
    return book_fill(trade, fill)


def _own_fill_id(trade: Trade, command: AddFill | CloseTrade) -> str:
    """The id of the fill that `command` books, unless it names one."""
    return f"{trade.trade_id}:{short_id(command.command_id)}"


def _with_close(trade: Trade, command: CloseTrade) -> Trade:
    own_id = _own_fill_id(trade, command)
    if any(fill.fill_id == own_id for fill in trade.fills):
        # Booked already, so long ago that `applied` has forgotten the command.
        return trade
    if not trade.open_amount or trade.status not in OPEN_STATUSES:
        problem = f"nothing is open in a {trade.status} trade"
        cure = _CLOSE_CURES.get(trade.status, "fill it first")
        raise IllegalTransition(problem, field="status", value=trade.status, cure=cure)
    fill = {
        "role": Role.EXIT,
        "amount": trade.open_amount if command.amount is None else command.amount,
        "price": command.price,
        "fee": command.fee,
        "fee_currency": command.fee_currency,
        "at": None if command.at is None else parse_time("at", command.at),
    }
    return _with_fill(
        trade,
        AddFill(command_id=command.command_id, as_of=command.as_of, trade_id=trade.trade_id, fill=fill),
    )


def _with_update(trade: Trade, command: UpdateTrade) -> Trade | None:
    changes = checked_changes(command.changes)
    if command.expected_version is not None and command.expected_version != trade.version:
        raise VersionMismatch(
            f"the trade is at version {trade.version}",
            field="expected_version",
            value=command.expected_version,
            cure="read it again and decide anew",
        )
    times = trade.field_times
    current = {name: value for name, value in changes.items() if command.as_of >= times.get(name, 0)}
    if changes and not current:
        return None
    after = _with_fields(trade, {name: value for name, value in current.items() if name != "status"})
    if "status" in current:
        after = _with_word(after, current["status"], command.as_of)
    if after is trade:
        return trade
    return msgspec.structs.replace(after, field_times=times | dict.fromkeys(current, command.as_of))


def _with_fields(trade: Trade, values: Mapping[str, Any]) -> Trade:
    new = {name: value for name, value in values.items() if getattr(trade, name) != value}
    if not new:
        return trade
    for name in _ORDER_NAMES & new.keys():
        _check_order_field(trade, name, new[name])
    if new.get("related_trade_id") == trade.trade_id:
        reject("related_trade_id", "is the trade itself", trade.trade_id, "another trade of the user")
    after = msgspec.structs.replace(trade, **new)
    if any(name in new for name in JSON_NAMES):
        json_group({name: getattr(after, name) for name in (*JSON_NAMES, "extra")})
    return refigure(after) if _FIGURE_NAMES & new.keys() else after


def _check_order_field(trade: Trade, name: str, value: Decimal | None) -> None:
    if trade.status not in (Status.PENDING, Status.SUBMITTED, Status.PARTIALLY_FILLED):
        raise IllegalTransition(
            f"the order of a {trade.status} trade is done", field=name, value=str(value), cure="leave it"
        )
    if name == "amount" and value is not None and value <= trade.filled:
        cure = "more than is filled; status cancelled ends the rest of the order"
        raise IllegalTransition("not above what is filled", field=name, value=str(value), cure=cure)


def _with_word(trade: Trade, word: str, as_of: int) -> Trade:
    evidence = Evidence(bool(trade.filled), bool(trade.closed), trade.pnl_reported)
    status, note = read_status(word, evidence)
    after = moved(trade, status, at=as_of)
    if note is None or after is trade:
        return after
    return msgspec.structs.replace(after, notes=(*after.notes, note))


def _with_reported_pnl(trade: Trade, command: UpdateTradePnl) -> Trade | None:
    pnl = parse_decimal("pnl", command.pnl)
    word = status_word("status", command.status)
    if command.as_of < trade.pnl_as_of:
        return None
    reported = msgspec.structs.replace(trade, pnl_reported=pnl, roi_reported=_still_valid_roi(trade, pnl))
    after = _with_word(reported, word, command.as_of)
    if pnl == trade.pnl_reported and after.status is trade.status:
        return trade
    return msgspec.structs.replace(after, pnl_as_of=command.as_of)


def _still_valid_roi(trade: Trade, pnl: Decimal) -> Decimal | None:
    """The return reported before, unless another PnL is reported now and its sign is another."""
    roi = trade.roi_reported
    if roi is None or pnl == trade.pnl_reported:
        return roi
    return roi if (roi > 0, roi < 0) == (pnl > 0, pnl < 0) else None
