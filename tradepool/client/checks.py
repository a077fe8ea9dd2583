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
from tradepool.model.fields import name
from tradepool.model.fill_intake import fill_from_dict
from tradepool.model.ids import TRADE_ID_CHARS_MAX
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


def check(command: Command) -> None:
    """Raises: Rejected, naming the field, when no pool would accept `command`."""
    match command:
        case AddTrade():
            _check_add(command)
        case AddFill():
            name("trade_id", command.trade_id, TRADE_ID_CHARS_MAX)
            if command.user_id is not None:
                name("user_id", command.user_id, USER_ID_CHARS_MAX)
            fill_from_dict(command.fill, now_us=command.as_of, default_id=command.command_id)
        case CloseTrade():
            _check_close(command)
        case UpdateTrade():
            name("trade_id", command.trade_id, TRADE_ID_CHARS_MAX)
            checked_changes(command.changes)
        case UpdateTradePnl():
            name("trade_id", command.trade_id, TRADE_ID_CHARS_MAX)
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
        name("trade_id", trade_id, TRADE_ID_CHARS_MAX)
    return list(dict.fromkeys(wanted))


def readable_json(command: Command) -> bytes:
    """The command as it travels. Raises: InvalidTrade when the fleet could not read it as a command."""
    try:
        body = wire.encode(wire.command_to_wire(command))
    except TypeError as problem:
        raise InvalidTrade(str(problem), field="trade", cure="give values that JSON can hold") from problem
    wire.check_readable(body)
    return body


def _check_add(command: AddTrade) -> None:
    trade = trade_from_dict(command.trade, now_us=command.as_of)
    name("user_id", trade.user_id, USER_ID_CHARS_MAX)
    if command.reserve is not None:
        # What a repeat would be told: it looks at the values, and needs no tokens.
        reserve_again(Ledger(user_id=trade.user_id), command, trade, is_same=True)


def _check_close(command: CloseTrade) -> None:
    name("trade_id", command.trade_id, TRADE_ID_CHARS_MAX)
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


def _check_positive(field: str, number: Decimal) -> None:
    if number <= 0:
        raise InvalidTrade(
            "must be above zero", field=field, value=str(number), cure="give a positive number"
        )
