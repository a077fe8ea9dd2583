"""What a caller can ask of a token ledger; values are as loose as he gave them."""

from __future__ import annotations

from typing import Any

import msgspec

from tradepool.model.ledger import parse_reservation_id

__all__ = [
    "CommandBase",
    "ExpireTokens",
    "ReleaseTokens",
    "ReserveTokens",
    "SettleTokens",
    "TokenCommand",
    "UpdateTokens",
    "owner_of",
]


class CommandBase(msgspec.Struct, frozen=True, kw_only=True):
    """What every command says: `command_id` names it for good."""

    command_id: str
    as_of: int
    """When the caller knew this, µs since 1970; decides between two changes of the same field."""


class UpdateTokens(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="update_tokens"):
    """Take over a venue's snapshot of free balances: `{asset: amount}` or a list of assets."""

    user_id: str
    account_id: str = "default"
    tokens: dict[str, Any] | list[Any]
    complete: bool = False


class ReserveTokens(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="reserve_tokens"):
    """Set `amount` of `asset` aside under the caller's `key`, for `ttl_s` seconds after `as_of`."""

    user_id: str
    account_id: str = "default"
    asset: Any
    amount: Any
    key: Any
    ttl_s: Any


class SettleTokens(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="settle_tokens"):
    """Spend `spent` of a reservation, return its rest, and book what was `received`, by asset."""

    reservation_id: str
    spent: Any
    received: Any = msgspec.field(default_factory=dict)


class ReleaseTokens(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="release_tokens"):
    """Give a reservation back unspent."""

    reservation_id: str


class ExpireTokens(CommandBase, frozen=True, kw_only=True, tag_field="op", tag="expire_tokens"):
    """Give back every reservation of the account whose time is over."""

    user_id: str
    account_id: str = "default"


TokenCommand = UpdateTokens | ReserveTokens | SettleTokens | ReleaseTokens | ExpireTokens


def owner_of(command: TokenCommand) -> tuple[str, str]:
    """The user and the account whose ledger `command` changes.

    Raises: InvalidTokens when a reservation id does not name them.
    """
    match command:
        case SettleTokens() | ReleaseTokens():
            name = parse_reservation_id(command.reservation_id)
            return name.user_id, name.account_id
        case _:
            return command.user_id, command.account_id
