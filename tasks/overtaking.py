"""Which refusals may only mean that a command was faster than the one before it."""

from __future__ import annotations

from tradepool.errors import InvalidTokens, Rejected, UnknownTrade
from tradepool.model.commands import AddTrade, Command
from tradepool.model.token_commands import ReleaseTokens, SettleTokens, owner_of

__all__ = ["misses_its_record"]


def misses_its_record(command: Command, refusal: Rejected) -> bool:
    """Whether `command` was refused because its trade, or its reservation, is not there (yet)."""
    match command:
        case AddTrade():
            return False
        case SettleTokens() | ReleaseTokens():
            # One that is there, but was settled or released, is an IllegalTransition.
            is_unknown = isinstance(refusal, InvalidTokens) and refusal.field == "reservation_id"
            return is_unknown and _names_a_ledger(command)
        case _:
            return isinstance(refusal, UnknownTrade)


def _names_a_ledger(command: SettleTokens | ReleaseTokens) -> bool:
    try:
        owner_of(command)
    except InvalidTokens:
        return False
    return True
