"""Calls to commands: what `TradePool` and `PoolClient` both make of their arguments.

Only the shape is settled here; values stay as loose as the caller gave them, and the model checks
them where the command is applied.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tradepool.clock import now_us
from tradepool.errors import InvalidTokens, InvalidTrade, Rejected
from tradepool.model.commands import (
    AddFill,
    AddTrade,
    CloseTrade,
    QuarantineTrade,
    UpdateTrade,
    UpdateTradePnl,
)
from tradepool.model.times import parse_time
from tradepool.model.token_commands import ReleaseTokens, ReserveTokens, SettleTokens, UpdateTokens
from tradepool.model.trade import Fill, Trade

__all__ = [
    "add_fill",
    "add_trade",
    "add_trade_or_refusal",
    "checked_trades",
    "close_trade",
    "new_command_id",
    "quarantine",
    "release_tokens",
    "reserve_tokens",
    "settle_tokens",
    "update_available_tokens",
    "update_trade",
    "update_trade_pnl",
]

_MINTED = ("trade_id", "created_at")
_PREFIX_BYTES = 12


class _CommandIds:
    """A random prefix for each process, and a number: unique on every host, and nobody's to guess."""

    def __init__(self) -> None:
        self.begin()
        # A fork must not go on with its parent's prefix.
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self._prefix = secrets.token_hex(_PREFIX_BYTES)
        self._numbers = itertools.count()

    def take(self) -> str:
        return f"{self._prefix}{next(self._numbers):08x}"


_command_ids = _CommandIds()


def new_command_id() -> str:
    """A fresh command id; the caller keeps it for every repeat of the same command."""
    return _command_ids.take()


def add_trade(trade: object, *, reserve: object = None) -> AddTrade:
    """The command that adds `trade`, and sets tokens aside for it as `reserve` says.

    Raises: InvalidTrade when `trade` is neither a Trade nor a dict, InvalidTokens when `reserve` is no dict.
    """
    fields = _fields("trade", trade)
    if reserve is not None and not isinstance(reserve, Mapping):
        raise InvalidTokens(
            "not a dict", field="reserve", value=reserve, cure="give asset, amount, ttl_s and perhaps a key"
        )
    return AddTrade(
        command_id=new_command_id(),
        as_of=now_us(),
        trade=fields,
        reserve=None if reserve is None else dict(reserve),
    )


def checked_trades(trades: object) -> Iterable[object]:
    """`trades`, to be added one by one. Raises: InvalidTrade when it is one trade, or nothing to iterate."""
    if isinstance(trades, Mapping | str | bytes) or not isinstance(trades, Iterable):
        raise InvalidTrade("not a list of trades", field="trades", value=trades, cure="give an iterable")
    return trades


def add_trade_or_refusal(trade: object) -> AddTrade | Rejected:
    """The command that adds `trade`, or why there can be none."""
    try:
        return add_trade(trade)
    except Rejected as refusal:
        return refusal


def add_fill(trade_id: str, fill: Fill | Mapping[str, Any], *, user_id: str | None = None) -> AddFill:
    """The command that books `fill`. Raises: InvalidTrade when it is neither a Fill nor a dict."""
    return AddFill(
        command_id=new_command_id(),
        as_of=now_us(),
        trade_id=trade_id,
        fill=_fields("fill", fill),
        user_id=user_id,
    )


def close_trade(
    trade_id: str, price: object, *, fee: object, fee_currency: str | None, amount: object, at: object
) -> CloseTrade:
    """The command that books an exit of `amount`, or of all that is open when None."""
    return CloseTrade(
        command_id=new_command_id(),
        as_of=now_us(),
        trade_id=trade_id,
        price=price,
        fee=fee,
        fee_currency=fee_currency,
        amount=amount,
        at=at,
    )


def update_trade(trade_id: str, changes: Mapping[str, Any], *, expected_version: int | None) -> UpdateTrade:
    """The command that sets the fields in `changes`.

    Raises: InvalidTrade when `expected_version` is neither a number nor None.
    """
    if not isinstance(expected_version, int | None):
        raise InvalidTrade(
            "not a version", field="expected_version", value=expected_version, cure="give the trade's version"
        )
    return UpdateTrade(
        command_id=new_command_id(),
        as_of=now_us(),
        trade_id=trade_id,
        changes=dict(changes),
        expected_version=expected_version,
    )


def update_trade_pnl(trade_id: str, pnl: object, status: str, *, as_of: object) -> UpdateTradePnl:
    """The command that stores a reported PnL, known at `as_of` (now when None)."""
    return UpdateTradePnl(
        command_id=new_command_id(), as_of=_known_at(as_of), trade_id=trade_id, pnl=pnl, status=status
    )


def quarantine(trade_id: str, reason: str | None) -> QuarantineTrade:
    """The command that puts a trade in quarantine for `reason`; or (None) releases it."""
    operation = "release" if reason is None else "quarantine"
    return QuarantineTrade(
        command_id=f"{operation}:{new_command_id()}", as_of=now_us(), trade_id=trade_id, reason=reason
    )


def update_available_tokens(
    user_id: str,
    tokens: Mapping[str, object] | Sequence[str],
    *,
    as_of: object,
    account_id: str,
    complete: bool,
) -> UpdateTokens:
    """The command that takes a venue's balances, known at `as_of` (now when None).

    Raises: InvalidTokens when `tokens` is neither a dict nor a list.
    """
    if isinstance(tokens, str) or not isinstance(tokens, Mapping | Sequence):
        raise InvalidTokens(
            "neither balances nor assets",
            field="tokens",
            value=tokens,
            cure="give {asset: amount} or a list of assets",
        )
    return UpdateTokens(
        command_id=new_command_id(),
        as_of=_known_at(as_of),
        user_id=user_id,
        account_id=account_id,
        tokens=dict(tokens) if isinstance(tokens, Mapping) else list(tokens),
        complete=complete,
    )


def reserve_tokens(
    user_id: str, asset: object, amount: object, key: object, ttl_s: object, *, account_id: str
) -> ReserveTokens:
    """The command that sets `amount` of `asset` aside under `key`, for `ttl_s` seconds from now."""
    return ReserveTokens(
        command_id=new_command_id(),
        as_of=now_us(),
        user_id=user_id,
        account_id=account_id,
        asset=asset,
        amount=amount,
        key=key,
        ttl_s=ttl_s,
    )


def settle_tokens(reservation_id: str, spent: object, received: object) -> SettleTokens:
    """The command that spends `spent` of a reservation and books what was `received` for it by asset.

    Raises: InvalidTokens when `received` is neither a dict nor None.
    """
    if received is not None and not isinstance(received, Mapping):
        raise InvalidTokens(
            "not amounts by asset", field="received", value=received, cure="give {asset: amount}"
        )
    return SettleTokens(
        command_id=new_command_id(),
        as_of=now_us(),
        reservation_id=reservation_id,
        spent=spent,
        received=dict(received or {}),
    )


def release_tokens(reservation_id: str) -> ReleaseTokens:
    """The command that gives a reservation back unspent."""
    return ReleaseTokens(command_id=new_command_id(), as_of=now_us(), reservation_id=reservation_id)


def _known_at(as_of: object) -> int:
    return now_us() if as_of is None else parse_time("as_of", as_of)


def _fields(name: str, given: object) -> dict[str, Any]:
    if isinstance(given, Trade | Fill):
        fields = given.to_dict()
        # A trade made by hand has no id and no time yet; the pool gives it both.
        return {key: value for key, value in fields.items() if value or key not in _MINTED}
    if isinstance(given, Mapping):
        return dict(given)
    raise InvalidTrade("not a dict", field=name, value=given, cure=f"give a dict of the {name}'s fields")
