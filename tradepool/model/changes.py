"""What a command does to a trade: decided here, purely; stored elsewhere, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

import msgspec

from tradepool.errors import IdempotencyConflict, IllegalTransition, Quarantined, VersionMismatch
from tradepool.model.archived import Archived
from tradepool.model.commands import (
    AddFill,
    AddTrade,
    CloseTrade,
    QuarantineTrade,
    TradeCommand,
    UpdateTrade,
    UpdateTradePnl,
)
from tradepool.model.fields import json_group, reject, text
from tradepool.model.fill_intake import fill_from_dict
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.intake import JSON_NAMES, checked_changes, trade_from_dict
from tradepool.model.kinds import Role, Status
from tradepool.model.money import parse_decimal, plain
from tradepool.model.pnl import book_fill, refigure
from tradepool.model.receipt import CommandOutcome
from tradepool.model.status_moves import ENTERED_STATUSES, moved
from tradepool.model.status_words import read_status, status_word
from tradepool.model.times import check_time, parse_time
from tradepool.model.trade import OPEN_STATUSES, Trade

__all__ = ["APPLIED_MAX", "RELEASED", "Change", "add", "change", "is_applied"]

APPLIED_MAX = 32
"""Applied commands that a record remembers; older repeats are caught by their `as_of`."""

RELEASED = "released from quarantine: "
"""How the note of a release begins; the reason of the quarantine follows."""

_REASON = text(1024)
_FIGURE_NAMES = ("funding", "interest", "leverage")
_ORDER_NAMES = ("amount", "price")
_ORDERED = frozenset({Status.PENDING, Status.SUBMITTED, Status.PARTIALLY_FILLED})
_LATE_CURE = "add the fill, if the venue made one before; else leave it"
_CLOSE_CURES = {
    Status.COMPLETED: "leave it: it is closed; update_trade_pnl corrects a reported result",
    Status.REJECTED: "leave it: it never filled; add a new trade",
    Status.CANCELLED: _LATE_CURE,
    Status.EXPIRED: _LATE_CURE,
}
"""What helps who closes a trade that has nothing open, where filling it does not."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a command came to; `trade` is the new version, or the unchanged one unless applied."""

    outcome: CommandOutcome
    trade: Trade


def add(command: AddTrade, *, trade_id: str, existing: Trade | None) -> Change:
    """The new trade of `command`, under `trade_id`.

    `existing` is the stored trade with that id or with the same idempotency key of the user: the same
    request again is a duplicate of it.

    Raises: IdempotencyConflict when `existing` came from another request; what `trade_from_dict` raises.
    """
    check_time("as_of", command.as_of)
    short = short_id(command.command_id)
    if existing is not None and is_applied(existing, short):
        return Change("duplicate", existing)
    trade = trade_from_dict(command.trade, now_us=command.as_of, trade_id=trade_id, applied=short)
    if existing is None:
        return Change("applied", trade)
    if existing.payload == trade.payload or _is_version_of(existing, command.trade):
        return Change("duplicate", existing)
    raise IdempotencyConflict(
        "another trade was added under this id or key",
        field="trade_id" if existing.trade_id == trade_id else "idempotency_key",
        value=existing.trade_id if existing.trade_id == trade_id else existing.idempotency_key,
        cure="send a request again unchanged, or under a new id",
    )


def _is_version_of(trade: Trade, fields: Mapping[str, Any]) -> bool:
    """Whether `fields` are what was read of the trade, now or in an earlier version."""
    applied, version = fields.get("applied"), fields.get("version")
    return (
        fields.get("payload") == trade.payload
        and isinstance(version, int)
        and version <= trade.version
        and isinstance(applied, str)
        and applied != ""
        and trade.applied.startswith(applied)
    )


def change(trade: Trade, command: TradeCommand | QuarantineTrade) -> Change:
    """`trade` after `command`, one version on; or what it found instead.

    `duplicate`: this command, this fill or this state is there already. `stale`: something newer is.

    Raises: InvalidTrade, IllegalTransition, IdempotencyConflict and Quarantined; then nothing may be written.
    """
    check_time("as_of", command.as_of)
    if isinstance(command, AddTrade):
        return add(command, trade_id=trade.trade_id, existing=trade)
    short = short_id(command.command_id)
    if is_applied(trade, short):
        return Change("duplicate", trade)
    if trade.quarantine is not None and not isinstance(command, QuarantineTrade):
        raise Quarantined(
            f"the trade is in quarantine ({trade.quarantine})",
            field="trade_id",
            value=trade.trade_id,
            cure="look into it, then `tradepool quarantine TRADE --release`",
        )
    after = _after(trade, command, short)
    if after is None:
        return Change("stale", trade)
    if after is trade:
        return Change("duplicate", trade)
    return Change("applied", _stamped(after, short, command.as_of))


def _after(
    trade: Trade, command: AddFill | CloseTrade | UpdateTrade | UpdateTradePnl | QuarantineTrade, short: str
) -> Trade | None:
    match command:
        case AddFill():
            return _with_fill(trade, command.fill, short, command.as_of)
        case CloseTrade():
            return _with_close(trade, command, short)
        case UpdateTrade():
            return _with_update(trade, command)
        case UpdateTradePnl():
            return _with_reported_pnl(trade, command)
        case QuarantineTrade():
            return _with_quarantine(trade, command.reason)


def is_applied(record: Trade | Archived, short: str) -> bool:
    """Whether the command with that short id is one of the last 32 that changed the trade."""
    applied = record.applied
    if short not in applied:
        return False
    return any(applied.startswith(short, start) for start in range(0, len(applied), SHORT_ID_CHARS))


def _stamped(trade: Trade, short: str, as_of: int) -> Trade:
    applied = (trade.applied + short)[-APPLIED_MAX * SHORT_ID_CHARS :]
    return msgspec.structs.replace(
        trade, version=trade.version + 1, updated_at=max(as_of, trade.updated_at), applied=applied
    )


def _with_fill(trade: Trade, fields: object, short: str, as_of: int) -> Trade:
    fill = fill_from_dict(fields, now_us=as_of, side=trade.side, default_id=_own_fill_id(trade, short))
    return book_fill(trade, fill)


def _own_fill_id(trade: Trade, short: str) -> str:
    """The id of the fill that a command books, unless it names one."""
    return f"{trade.trade_id}:{short}"


def _with_close(trade: Trade, command: CloseTrade, short: str) -> Trade:
    if _own_fill_id(trade, short) in [fill.fill_id for fill in trade.fills]:
        # Booked already, so long ago that `applied` has forgotten the command.
        return trade
    held = trade.open_amount
    if not held or trade.status not in OPEN_STATUSES:
        problem = f"nothing is open in a {trade.status} trade"
        cure = _CLOSE_CURES.get(trade.status, "fill it first")
        raise IllegalTransition(problem, field="status", value=trade.status, cure=cure)
    fill = {
        "role": Role.EXIT,
        "amount": held if command.amount is None else command.amount,
        "price": command.price,
        "fee": command.fee,
        "fee_currency": command.fee_currency,
        "at": None if command.at is None else parse_time("at", command.at),
    }
    return _with_fill(trade, fill, short, command.as_of)


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
    times = times | dict.fromkeys(current, command.as_of)
    word = current.pop("status", None)
    after = _with_fields(trade, current)
    if word is not None:
        after = _with_word(after, word, command.as_of)
    return trade if after is trade else msgspec.structs.replace(after, field_times=times)


def _with_fields(trade: Trade, values: Mapping[str, Any]) -> Trade:
    new = {name: value for name, value in values.items() if getattr(trade, name) != value}
    if not new:
        return trade
    if not new.keys().isdisjoint(_ORDER_NAMES):
        _check_order(trade, new)
    if new.get("related_trade_id") == trade.trade_id:
        reject("related_trade_id", "is the trade itself", trade.trade_id, "another trade of the user")
    after = msgspec.structs.replace(trade, **new)
    if not new.keys().isdisjoint(JSON_NAMES):
        json_group({name: getattr(after, name) for name in (*JSON_NAMES, "extra")})
    return after if new.keys().isdisjoint(_FIGURE_NAMES) else refigure(after)


def _check_order(trade: Trade, new: dict[str, Any]) -> None:
    """Pass when the order may become what `new` says; another amount makes it an order anew.

    An open position can be added to: its amount then is what is filled and the further order together.
    """
    amount: Decimal = new.get("amount", trade.amount)
    if "amount" in new:
        _check_amount(trade, amount)
        new["amount_ordered"] = None
    elif trade.status not in _ORDERED and (trade.status not in ENTERED_STATUSES or amount <= trade.filled):
        _refuse_order(trade, "price", new["price"])


def _check_amount(trade: Trade, amount: Decimal) -> None:
    is_entered = trade.status in ENTERED_STATUSES
    if trade.status not in _ORDERED and not is_entered:
        _refuse_order(trade, "amount", amount)
    if amount < trade.filled or (amount == trade.filled and not is_entered):
        cure = f"more than {plain(trade.filled)}; status cancelled takes the rest of an order back"
        raise IllegalTransition("not above what is filled", field="amount", value=plain(amount), cure=cure)


def _refuse_order(trade: Trade, name: str, value: Decimal | None) -> NoReturn:
    is_entered = trade.status in ENTERED_STATUSES
    raise IllegalTransition(
        f"the order of a {trade.status} trade is done",
        field=name,
        value=None if value is None else plain(value),
        cure="a larger amount first, if there is a further order" if is_entered else "leave it",
    )


def _with_word(trade: Trade, word: str, as_of: int) -> Trade:
    status, note = read_status(
        word, filled=bool(trade.filled), closed=bool(trade.closed), pnl=trade.pnl_reported
    )
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


def _with_quarantine(trade: Trade, reason: str | None) -> Trade:
    reason = None if reason is None else _REASON("reason", reason)
    if reason == trade.quarantine:
        return trade
    notes = trade.notes
    if reason is None:
        notes = (*notes, f"{RELEASED}{trade.quarantine}")
    return msgspec.structs.replace(trade, quarantine=reason, notes=notes)


def _still_valid_roi(trade: Trade, pnl: Decimal) -> Decimal | None:
    """The return reported before, unless another PnL is reported now and its sign is another."""
    roi = trade.roi_reported
    if roi is None or pnl == trade.pnl_reported:
        return roi
    return roi if (roi > 0, roi < 0) == (pnl > 0, pnl < 0) else None
