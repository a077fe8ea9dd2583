"""What a caller can ask of a token ledger beside `UpdateTokens`; values are as loose as he gave them."""

from __future__ import annotations

from typing import Any

import msgspec

from tradepool.model.commands import UpdateTokens
from tradepool.model.ledger import parse_reservation_id

__all__ = [
    "ExpireTokens",
    "ReleaseTokens",
    "ReserveTokens",
    "SettleTokens",
    "TokenCommand",
    "owner_of",
]


class _Base(msgspec.Struct, frozen=True, kw_only=True):
    command_id: str
    as_of: int
    """When the caller asked, µs since 1970."""


class ReserveTokens(_Base, frozen=True, kw_only=True, tag_field="op", tag="reserve_tokens"):
    """Set `amount` of `asset` aside under the caller's `key`, for `ttl_s` seconds after `as_of`."""

    user_id: str
    account_id: str = "default"
    asset: Any
    amount: Any
    key: Any
    ttl_s: Any


class SettleTokens(_Base, frozen=True, kw_only=True, tag_field="op", tag="settle_tokens"):
    """Spend `spent` of a reservation, return its rest, and book what was `received` for it by asset."""

    reservation_id: str
    spent: Any
    received: Any = msgspec.field(default_factory=dict)


class ReleaseTokens(_Base, frozen=True, kw_only=True, tag_field="op", tag="release_tokens"):
    """Give a reservation back unspent."""

    reservation_id: str


class ExpireTokens(_Base, frozen=True, kw_only=True, tag_field="op", tag="expire_tokens"):
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
