"""Tokens set aside in the same step in which a trade is added: `AddTrade.reserve`."""

from __future__ import annotations

import msgspec

from tradepool.errors import IdempotencyConflict, InvalidTokens, Rejected
from tradepool.model.commands import AddTrade, PoolCommand
from tradepool.model.ledger import Ledger, ReservationStatus, find_reservation, ledger_id
from tradepool.model.ledger_change import LedgerChange, is_forgotten
from tradepool.model.reservations import asked_for
from tradepool.model.token_commands import ReserveTokens
from tradepool.model.tokens import change
from tradepool.model.trade import Trade

__all__ = ["ledger_beside", "reserve_again", "reserve_with"]

_REQUIRED = ("asset", "amount", "ttl_s")
_NAMES = {*_REQUIRED, "key"}


def ledger_beside(command: PoolCommand) -> str | None:
    """The ledger of an add that sets tokens aside, as far as its loose fields tell the account."""
    if not isinstance(command, AddTrade) or command.reserve is None:
        return None
    account_id = command.trade.get("account_id")
    return ledger_id(command.trade["user_id"], "default" if account_id is None else account_id)


def reserve_with(ledger: Ledger, command: AddTrade, trade: Trade, *, now_us: int) -> LedgerChange:
    """Set aside what `command` asks for `trade`, which is new; the outcome is `applied`.

    Raises: as `reservations.reserve`, with fields named `reserve.…`; besides IdempotencyConflict when the
    key stands for any reservation, InvalidTokens when the command comes too late.
    """
    try:
        asked = _reserve_tokens(command, trade)
        made = change(ledger, asked, now_us=now_us)
        if made.outcome == "stale":
            cure = "add the trade again, with the tokens that are there now"
            raise InvalidTokens("came too late", field="ttl_s", value=asked.ttl_s, cure=cure)
        if made.outcome != "applied":
            cure = "leave the key out, or give one of its own to each trade"
            raise IdempotencyConflict("the key is taken", field="key", value=asked.key, cure=cure)
    except Rejected as refusal:
        raise _within_reserve(refusal) from None
    return made


def reserve_again(ledger: Ledger, command: AddTrade, trade: Trade, *, is_same: bool) -> LedgerChange:
    """What became of the tokens of `trade`, which was there already; the outcome is `duplicate`.

    `is_same` says that the trade was added by this very command; then, or where its key was forgotten, the
    reservation is `forgotten` if it is unknown by now.

    Raises: IdempotencyConflict when they were not set aside with it, or others were.
    """
    try:
        asked = asked_for(ledger, _reserve_tokens(command, trade))
    except Rejected as refusal:
        raise _within_reserve(refusal) from None
    known = find_reservation(ledger, asked.key)
    if known is None and (is_same or is_forgotten(ledger, asked.key)):
        known = msgspec.structs.replace(asked, status=ReservationStatus.FORGOTTEN)
    if known is None or (known.asset, known.amount) != (asked.asset, asked.amount):
        raise IdempotencyConflict(
            "the trade is there, and not with this reservation",
            field="reserve",
            value=command.reserve,
            cure="send a request again unchanged, or reserve tokens under a key of their own",
        )
    return LedgerChange(outcome="duplicate", ledger=ledger, reservation=known)


def _reserve_tokens(command: AddTrade, trade: Trade) -> ReserveTokens:
    given = command.reserve
    assert given is not None
    for name in _REQUIRED:
        if given.get(name) is None:
            cure = "give asset, amount and ttl_s"
            raise InvalidTokens("missing", field=name, cure=cure)
    for name in given.keys() - _NAMES:
        cure = "give asset, amount, ttl_s and key"
        raise InvalidTokens("unknown", field=str(name), value=given[name], cure=cure)
    return ReserveTokens(
        command_id=command.command_id,
        as_of=command.as_of,
        user_id=trade.user_id,
        account_id=trade.account_id,
        asset=given["asset"],
        amount=given["amount"],
        key=trade.trade_id if given.get("key") is None else given["key"],
        ttl_s=given["ttl_s"],
    )


def _within_reserve(refusal: Rejected) -> Rejected:
    """The refusal, its field named as the caller of `add_trade` knows it."""
    field = f"reserve.{refusal.field}"
    return type(refusal)(refusal.problem, field=field, value=refusal.value or None, cure=refusal.cure)
