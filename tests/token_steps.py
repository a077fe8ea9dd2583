"""Commands of one token ledger, of user `u`, and what they make of it."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

from tradepool.model import ledger as ledgers
from tradepool.model import tokens
from tradepool.model.ledger import Ledger, reservation_id
from tradepool.model.ledger_change import LedgerChange
from tradepool.model.token_commands import (
    ExpireTokens,
    ReleaseTokens,
    ReserveTokens,
    SettleTokens,
    TokenCommand,
    UpdateTokens,
)

US_PER_S = 1_000_000
EMPTY = Ledger(user_id="u")

_ids = count()


def command_id() -> str:
    return f"c{next(_ids)}"


def snapshot(told: Any, at: int = 0, *, complete: bool = False) -> UpdateTokens:
    return UpdateTokens(command_id=command_id(), as_of=at, user_id="u", tokens=told, complete=complete)


def reserving(
    amount: Any, key: Any = "k", *, asset: Any = "USDT", ttl_s: Any = 60, at: int = 0
) -> ReserveTokens:
    return ReserveTokens(
        command_id=command_id(), as_of=at, user_id="u", asset=asset, amount=amount, key=key, ttl_s=ttl_s
    )


def settling(spent: Any, key: str = "k", *, received: Any = None, at: int = 0) -> SettleTokens:
    return SettleTokens(
        command_id=command_id(),
        as_of=at,
        reservation_id=reservation_id("u", "default", key),
        spent=spent,
        received={} if received is None else received,
    )


def releasing(key: str = "k") -> ReleaseTokens:
    return ReleaseTokens(command_id=command_id(), as_of=0, reservation_id=reservation_id("u", "default", key))


def expiring() -> ExpireTokens:
    return ExpireTokens(command_id=command_id(), as_of=0, user_id="u")


def change(ledger: Ledger, command: TokenCommand, *, now_us: int | None = None) -> LedgerChange:
    return tokens.change(ledger, command, now_us=command.as_of if now_us is None else now_us)


def available(ledger: Ledger, *, now_us: int = 0) -> dict[str, Decimal]:
    return ledgers.available(ledger, now_us=now_us)


def after(*commands: TokenCommand, ledger: Ledger = EMPTY) -> Ledger:
    for command in commands:
        ledger = change(ledger, command).ledger
    return ledger


def funded(amount: Any = 100) -> Ledger:
    return after(snapshot({"USDT": amount}))


def figures(ledger: Ledger, asset: str = "USDT") -> tuple[Decimal, Decimal, Decimal]:
    balance = ledger.assets[asset]
    return balance.total, balance.reserved, balance.available
