"""What a client makes of a command before it keeps it: its ids, and its line in the spool."""

from __future__ import annotations

import secrets

import msgspec

from tradepool import wire
from tradepool.client.checks import readable_json
from tradepool.client.spool import NewEntry
from tradepool.model import ids
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, Command, UpdateTrade, UpdateTradePnl
from tradepool.model.ledger import ledger_id
from tradepool.model.token_commands import owner_of
from tradepool.model.trade_reservations import ledger_beside

__all__ = ["spool_entry", "with_trade_id"]


def with_trade_id(command: AddTrade) -> AddTrade:
    """The command with a trade id in it, so that the caller has it before the fleet does."""
    user_id = command.trade.get("user_id")
    if command.trade.get("trade_id") is not None or not isinstance(user_id, str):
        return command
    key = command.trade.get("idempotency_key")
    if isinstance(key, str):
        # A repeated add under the same key must return the id that the first one got.
        trade_id = ids.derive_id(user_id, at_us=0, seed=f"key:{user_id}\x1f{key}")
    else:
        trade_id = ids.mint_id(user_id, at_us=command.as_of, random_bits=secrets.randbits(64))
    return msgspec.structs.replace(command, trade={**command.trade, "trade_id": trade_id})


def spool_entry(command: Command) -> NewEntry:
    """How `command` stands in the spool. Raises: InvalidTrade when the fleet could not read it."""
    body = readable_json(command)
    match command:
        case AddTrade(trade=trade):
            record_id, user_id, beside = trade["trade_id"], trade["user_id"], ledger_beside(command)
            return NewEntry(command.command_id, wire.QUEUE_TRADES, record_id, user_id, body, beside)
        case AddFill() | CloseTrade() | UpdateTrade() | UpdateTradePnl():
            named = command.user_id if isinstance(command, AddFill) else None
            return NewEntry(command.command_id, wire.QUEUE_TRADES, command.trade_id, named, body)
        case _:
            user_id, account_id = owner_of(command)
            record_id = ledger_id(user_id, account_id)
            return NewEntry(command.command_id, wire.QUEUE_TOKENS, record_id, user_id, body)
