"""A command's values, checked in the caller by the rules the fleet will apply.

What needs the trade itself (its state, its open amount) only the fleet can check.
"""

from __future__ import annotations

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
from tradepool.model.ledger import ledger_id
from tradepool.model.money import parse_decimal
from tradepool.model.times import parse_time
from tradepool.model.token_commands import UpdateTokens
from tradepool.model.token_intake import amounts_of, asset_names_of
from tradepool.placing import USER_ID_CHARS_MAX

__all__ = ["check", "readable_json"]

TRADE_ID_CHARS_MAX = 64


def check(command: Command) -> None:
    """Raises: Rejected, naming the field, when no pool would accept `command`."""
    match command:
        case AddTrade():
            trade = trade_from_dict(command.trade, now_us=command.as_of)
            _check_user_id(trade.user_id)
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
        case UpdateTokens():
            _check_tokens(command)


def readable_json(command: Command) -> bytes:
    """The command as it travels. Raises: InvalidTrade when the fleet could not read it as a command."""
    try:
        body = wire.encode(wire.command_to_wire(command))
    except TypeError as problem:
        raise InvalidTrade(str(problem), field="trade", cure="give values that JSON can hold") from problem
    wire.command_from_wire(wire.decode(body))
    return body


def _check_close(command: CloseTrade) -> None:
    _check_trade_id(command.trade_id)
    _check_positive("price", parse_decimal("price", command.price))
    parse_decimal("fee", command.fee)
    if command.amount is not None:
        _check_positive("amount", parse_decimal("amount", command.amount))
    if command.at is not None:
        parse_time("at", command.at)


def _check_tokens(command: UpdateTokens) -> None:
    ledger_id(command.user_id, command.account_id)
    if isinstance(command.tokens, dict):
        amounts_of("tokens", command.tokens)
    else:
        asset_names_of("tokens", command.tokens)


def _check_trade_id(trade_id: object) -> None:
    if not isinstance(trade_id, str) or not 0 < len(trade_id) <= TRADE_ID_CHARS_MAX:
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
