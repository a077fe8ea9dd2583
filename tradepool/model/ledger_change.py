"""One step of a ledger: its next version, and what every step keeps in bounds."""

from __future__ import annotations

import msgspec

from tradepool.errors import InvalidTokens
from tradepool.model.ids import SHORT_ID_CHARS, short_id
from tradepool.model.ledger import Balance, Ledger, Reservation
from tradepool.model.receipt import CommandOutcome
from tradepool.model.token_commands import TokenCommand
from tradepool.model.token_intake import ASSETS_MAX

__all__ = [
    "APPLIED_MAX",
    "LedgerChange",
    "balance_of",
    "check_asset_count",
    "is_applied",
    "is_forgotten",
    "next_version",
    "with_balance",
]

APPLIED_MAX = 32
"""Commands a ledger remembers by id."""


class LedgerChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a command made of a ledger."""

    outcome: CommandOutcome
    ledger: Ledger
    reservation: Reservation | None = None
    """What a reserve, settle or release was about, as it stands now; of other commands None."""
    expired: int = 0
    """How many reservations the change gave back because their time was over."""
    frozen: tuple[str, ...] = ()
    """Assets that this snapshot froze: the venue has less than is reserved. A finding."""


def is_applied(ledger: Ledger, command_id: str) -> bool:
    """Whether the command is one of the last 32 that changed the ledger."""
    return _holds(ledger.applied, command_id)


def is_forgotten(ledger: Ledger, key: str) -> bool:
    """Whether the key's reservation was resolved, and nothing but that is known of it any more."""
    return _holds(ledger.forgotten, key)


def next_version(ledger: Ledger, command: TokenCommand) -> Ledger:
    """`ledger`, already changed, as the version that `command` made."""
    return msgspec.structs.replace(
        ledger,
        version=ledger.version + 1,
        applied=(ledger.applied + short_id(command.command_id))[-APPLIED_MAX * SHORT_ID_CHARS :],
        updated_at=max(command.as_of, ledger.updated_at),
    )


def balance_of(ledger: Ledger, asset: str) -> Balance:
    """The asset's balance; one of which nothing is known when the ledger lacks it."""
    return ledger.assets.get(asset, Balance())


def with_balance(ledger: Ledger, asset: str, balance: Balance) -> Ledger:
    """The ledger with one balance set.

    Raises: InvalidTokens when that would be more than 10,000 assets.
    """
    assets = {**ledger.assets, asset: balance}
    check_asset_count(len(assets))
    return msgspec.structs.replace(ledger, assets=assets)


def check_asset_count(count: int) -> None:
    """Raises: InvalidTokens for more assets than a ledger may hold."""
    if count > ASSETS_MAX:
        cure = f"a ledger holds at most {ASSETS_MAX}"
        raise InvalidTokens("too many assets", field="tokens", value=str(count), cure=cure)


def _holds(short_ids: str, name: str) -> bool:
    wanted = short_id(name)
    starts = range(0, len(short_ids), SHORT_ID_CHARS)
    return wanted in short_ids and any(short_ids.startswith(wanted, start) for start in starts)
