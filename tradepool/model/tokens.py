"""The rules of a token ledger: pure functions from a ledger and a command to the next ledger.

Every outcome is `applied` (a new version), `duplicate` (the ledger already says so) or `stale` (the
command came too late); a rule that is broken raises and changes nothing. `ledger` explains how
total, reserved and available follow from a venue's snapshot.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from tradepool.errors import InvalidTokens
from tradepool.model.ledger import Balance, Ledger
from tradepool.model.ledger_change import (
    LedgerChange,
    balance_of,
    check_asset_count,
    is_applied,
    next_version,
)
from tradepool.model.money import ZERO
from tradepool.model.reservations import expire, release, reserve, settle
from tradepool.model.times import TIME_US_MAX
from tradepool.model.token_commands import (
    ExpireTokens,
    ReleaseTokens,
    ReserveTokens,
    SettleTokens,
    TokenCommand,
    UpdateTokens,
)
from tradepool.model.token_intake import amounts_of, asset_names_of

__all__ = ["change"]


def change(ledger: Ledger, command: TokenCommand, *, now_us: int) -> LedgerChange:
    """Apply any token command at `now_us`, by the clock of whoever applies it.

    A caller whose clock runs ahead has known it at `now_us`: else it would hold tokens for longer than it
    asked, and make everybody else's news stale.

    Raises: InvalidTokens for an `as_of` before 1970 or after 9999; and as the function of the command.
    """
    if not 0 <= command.as_of <= TIME_US_MAX:
        cure = "between 1970 and 9999, in µs"
        raise InvalidTokens("out of range", field="as_of", value=command.as_of, cure=cure)
    command = msgspec.structs.replace(command, as_of=min(command.as_of, now_us))
    match command:
        case UpdateTokens():
            return apply_snapshot(ledger, command)
        case ReserveTokens():
            return reserve(ledger, command, now_us=now_us)
        case SettleTokens():
            return settle(ledger, command, now_us=now_us)
        case ReleaseTokens():
            return release(ledger, command, now_us=now_us)
        case ExpireTokens():
            return expire(ledger, command, now_us=now_us)


def apply_snapshot(ledger: Ledger, command: UpdateTokens) -> LedgerChange:
    """Take over a venue's free balances, or a list of tradable assets.

    Per asset the newer `as_of` wins; the outcome is `stale` when nothing in the command is newer.
    With `complete`, assets that are not named are taken to be 0 (for a list: not tradable).

    Raises: InvalidTokens for anything but {asset: amount ≥ 0} or a list of assets.
    """
    if is_applied(ledger, command.command_id):
        return LedgerChange(outcome="duplicate", ledger=ledger)
    if isinstance(command.tokens, dict):
        assets, late = _told(ledger, command, amounts_of("tokens", command.tokens))
    else:
        assets, late = _listed(ledger, command, asset_names_of("tokens", command.tokens))
    if assets == ledger.assets:
        return LedgerChange(outcome="stale" if late else "duplicate", ledger=ledger)
    check_asset_count(len(assets))
    frozen = sorted(
        asset for asset in assets if assets[asset].frozen and not balance_of(ledger, asset).frozen
    )
    after = next_version(msgspec.structs.replace(ledger, assets=assets), command)
    return LedgerChange(outcome="applied", ledger=after, frozen=tuple(frozen))


def _told(
    ledger: Ledger, command: UpdateTokens, amounts: dict[str, Decimal]
) -> tuple[dict[str, Balance], bool]:
    """The balances after a snapshot of amounts, and whether some of it came too late."""
    if command.complete:
        amounts = dict.fromkeys(ledger.assets, ZERO) | amounts
    assets, late = dict(ledger.assets), False
    for asset, free in amounts.items():
        balance = balance_of(ledger, asset)
        if balance.as_of is not None and command.as_of < balance.as_of:
            late = True
            continue
        told_at = command.as_of
        assets[asset] = msgspec.structs.replace(balance, free=free, as_of=told_at, told_at=told_at)
    return assets, late


def _listed(ledger: Ledger, command: UpdateTokens, names: tuple[str, ...]) -> tuple[dict[str, Balance], bool]:
    """The balances after a list of tradable assets, amounts untouched; whether some of it came too late."""
    tradable = dict.fromkeys(ledger.assets if command.complete else (), False) | dict.fromkeys(names, True)
    assets, late = dict(ledger.assets), False
    for asset, flag in tradable.items():
        balance = balance_of(ledger, asset)
        if balance.listed_at is not None and command.as_of < balance.listed_at:
            late = True
            continue
        assets[asset] = msgspec.structs.replace(balance, tradable=flag, listed_at=command.as_of)
    return assets, late
