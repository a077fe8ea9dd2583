"""A command's values, checked in the caller by the rules the fleet will apply.

What needs the trade itself (its state, its open amount) only the fleet can check.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from tradepool import wire
from tradepool.errors import InvalidTrade
from tradepool.model.commands import (
    AddFill,
    AddTrade,
    CloseTrade,
    Command,
    UpdateTrade,
    UpdateTradePnl,
)
from tradepool.model.fill_intake import fill_from_dict
from tradepool.model.intake import checked_changes, trade_from_dict
from tradepool.model.ledger import USER_ID_CHARS_MAX, Ledger, ledger_id
from tradepool.model.money import parse_decimal
from tradepool.model.reservations import asked_for
from tradepool.model.times import parse_time
from tradepool.model.token_commands import (
    ExpireTokens,
    ReleaseTokens,
    ReserveTokens,
    SettleTokens,
    TokenCommand,
    UpdateTokens,
    owner_of,
)
from tradepool.model.token_intake import amount_of, amounts_of, asset_names_of
from tradepool.model.trade_reservations import reserve_again

__all__ = ["check", "checked_ids", "readable_json"]

TRADE_ID_CHARS_MAX = 64


def check(command: Command) -> None:
    """Raises: Rejected, naming the field, when no pool would accept `command`."""
    match command:
        case AddTrade():
            _check_add(command)
        case AddFill():
            _check_trade_id(command.trade_id)
            if command.user_id is not None:
                _check_user_id(command.user_id)
            fill_from_dict(command.fill, now_us=command.as_of, default_id=command.command_id)
        case CloseTrade():
            _check_close(command)
        case UpdateTrade():
            _check_trade_id(command.trade_id)
            checked_changes(command.changes)
        case UpdateTradePnl():
            _check_trade_id(command.trade_id)
            parse_decimal("pnl", command.pnl)
            checked_changes({"status": command.status})
        case _:
            _check_tokens(command)


def checked_ids(trade_ids: object) -> list[str]:
    """The different ids in `trade_ids`, in order. Raises: InvalidTrade when it is not several trade ids."""
    if isinstance(trade_ids, str | bytes) or not isinstance(trade_ids, Iterable):
        raise InvalidTrade("not a list of ids", field="trade_ids", value=trade_ids, cure="give an iterable")
    wanted = list(trade_ids)
    for trade_id in wanted:
        _check_trade_id(trade_id)
    return list(dict.fromkeys(wanted))


def readable_json(command: Command) -> bytes:
    """The command as it travels. Raises: InvalidTrade when the fleet could not read it as a command."""
    try:
        body = wire.encode(wire.command_to_wire(command))
    except TypeError as problem:
        raise InvalidTrade(str(problem), field="trade", cure="give values that JSON can hold") from problem
    wire.command_from_wire(wire.decode(body))
    return body


def _check_add(command: AddTrade) -> None:
    trade = trade_from_dict(command.trade, now_us=command.as_of)
    _check_user_id(trade.user_id)
    if command.reserve is not None:
        # What a repeat would be told: it looks at the values, and needs no tokens.
        reserve_again(Ledger(user_id=trade.user_id), command, trade, is_same=True)


def _check_close(command: CloseTrade) -> None:
    _check_trade_id(command.trade_id)
    _check_positive("price", parse_decimal("price", command.price))
    parse_decimal("fee", command.fee)
    if command.amount is not None:
        _check_positive("amount", parse_decimal("amount", command.amount))
    if command.at is not None:
        parse_time("at", command.at)


def _check_tokens(command: TokenCommand) -> None:
    ledger_id(*owner_of(command))
    match command:
        case UpdateTokens(tokens=dict() as amounts):
            amounts_of("tokens", amounts)
        case UpdateTokens():
            asset_names_of("tokens", command.tokens)
        case ReserveTokens():
            asked_for(Ledger(user_id=command.user_id), command)
        case SettleTokens():
            amount_of("spent", command.spent)
            amounts_of("received", command.received)
        case ReleaseTokens() | ExpireTokens():
            pass


def _check_trade_id(trade_id: object) -> None:
    is_id = isinstance(trade_id, str) and trade_id.isprintable() and 0 < len(trade_id) <= TRADE_ID_CHARS_MAX
    if not is_id:
        raise InvalidTrade(
            "not a trade id", field="trade_id", value=trade_id, cure="give the trade's id as text"
        )


def _check_user_id(user_id: object) -> None:
    is_name = isinstance(user_id, str) and 0 < len(user_id) <= USER_ID_CHARS_MAX and user_id.isprintable()
    if not is_name:
        raise InvalidTrade(
            "not a name",
            field="user_id",
            value=user_id,
            cure=f"give 1 to {USER_ID_CHARS_MAX} printable characters",
        )


def _check_positive(field: str, number: Decimal) -> None:
    if number <= 0:
        raise InvalidTrade(
            "must be above zero", field=field, value=str(number), cure="give a positive number"
        )
