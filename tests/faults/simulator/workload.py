"""The commands that the writers of a seed send: few records, so that they meet."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tradepool.model.commands import AddFill, AddTrade, CloseTrade, Command, UpdateTrade, UpdateTradePnl
from tradepool.model.ids import mint_id
from tradepool.model.ledger import reservation_id
from tradepool.model.token_commands import ReleaseTokens, ReserveTokens, SettleTokens, UpdateTokens

__all__ = ["LATEST_US", "USERS", "Batch", "batches_of"]

USERS = ("ann", "bob", "cy")
NOW_US = 1_750_000_000_000_000
LATEST_US = NOW_US + 10 * 86_400_000_000
"""After every time in a plan, and before the end of its first reservation."""

_SYMBOLS = ("BTC/USDT", "ETH/USDT")
_ASSETS = ("USDT", "BTC")
_SHARED_TRADES = 18
_BATCHES = 56
_BATCH_MAX = 5
_FILLS = 8
_RESERVATIONS = 8
_TTL_S = 30 * 86_400
_RESEND_PERCENT = 6
_STEP_PERCENT = 2
_STEPS_S = (-7200, -600, -30, 30, 600, 7200)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Commands sent in one call, not before `at_ms`."""

    at_ms: int
    commands: tuple[Command, ...]


class _Clock:
    """A writer's clock as its machine sets it: it steps, both ways."""

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self._step_us = 0

    def at(self, at_ms: int) -> int:
        if self._choose.randrange(100) < _STEP_PERCENT:
            self._step_us = self._choose.choice(_STEPS_S) * 1_000_000
        return NOW_US + self._step_us + at_ms * 1000 + self._choose.randrange(1000)


class _Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A trade that several writers know: what it is called, and what is added under that name."""

    trade_id: str
    user_id: str
    fields: dict[str, Any]
    from_ms: int
    """When writers begin to talk about it."""


def batches_of(
    choose: random.Random, seed: int, *, writers: int, run_ms: int
) -> tuple[tuple[Batch, ...], ...]:
    """Each writer's batches, spread over `run_ms`."""
    slots = [_slot(choose, seed, number, run_ms) for number in range(_SHARED_TRADES)]
    return tuple(
        tuple(_Writer(choose, f"s{seed}.w{number}", slots).batches(run_ms)) for number in range(writers)
    )


def _slot(choose: random.Random, seed: int, number: int, run_ms: int) -> _Slot:
    user_id = choose.choice(USERS)
    minted = mint_id(user_id, at_us=NOW_US + number, random_bits=choose.getrandbits(58))
    trade_id = choose.choice([f"s{seed}-t{number}", minted])
    fields = {
        "trade_id": trade_id,
        "user_id": user_id,
        "symbol": choose.choice(_SYMBOLS),
        "exchange": "kraken",
        "side": choose.choice(["buy", "sell"]),
        "amount": "10",
        "price": str(choose.randrange(90, 110)),
    }
    if number % 3 == 0:
        fields["idempotency_key"] = f"key-{number}"
    from_ms = number * run_ms * 2 // (3 * _SHARED_TRADES)
    return _Slot(trade_id=trade_id, user_id=user_id, fields=fields, from_ms=from_ms)


class _Writer:
    """Makes the commands of one writer."""

    def __init__(self, choose: random.Random, name: str, slots: list[_Slot]) -> None:
        self._choose = choose
        self._name = name
        self._slots = slots
        self._clock = _Clock(choose)
        self._sent: list[Command] = []
        self._added: set[str] = set()

    def batches(self, run_ms: int) -> Iterator[Batch]:
        for at_ms in sorted(self._choose.randrange(run_ms) for _ in range(_BATCHES)):
            size = self._choose.randint(1, _BATCH_MAX)
            yield Batch(at_ms=at_ms, commands=tuple(self._command(at_ms) for _ in range(size)))

    def _command(self, at_ms: int) -> Command:
        if self._sent and self._choose.randrange(100) < _RESEND_PERCENT:
            return self._choose.choice(self._sent[-20:])
        about = {"command_id": f"{self._name}.c{len(self._sent)}", "as_of": self._clock.at(at_ms)}
        slot = self._known_slot(at_ms)
        make = self._choose.choices(list(_MAKERS), weights=list(_MAKERS.values()))[0]
        if slot.trade_id not in self._added and self._choose.randrange(2):
            make = _Writer.add
        command = make(self, slot, about)
        self._sent.append(command)
        return command

    def _known_slot(self, at_ms: int) -> _Slot:
        """One of the trades that have begun, more likely a young one."""
        known = [slot for slot in self._slots if slot.from_ms <= at_ms]
        return self._choose.choice(known[-6:] if self._choose.randrange(4) else known)

    def add(self, slot: _Slot, about: dict[str, Any]) -> AddTrade:
        self._added.add(slot.trade_id)
        other = {"amount": "11"} if self._choose.randrange(12) == 0 else {}
        return AddTrade(trade=slot.fields | other, **about)

    def add_own(self, slot: _Slot, about: dict[str, Any]) -> AddTrade:
        """A trade that only this writer adds, or one that all know by its key alone."""
        fields = {name: value for name, value in slot.fields.items() if name != "trade_id"}
        fields.pop("idempotency_key", None)
        if self._choose.randrange(2):
            fields |= {"idempotency_key": f"open-{slot.trade_id}"}
        return AddTrade(trade=fields, **about)

    def fill(self, slot: _Slot, about: dict[str, Any]) -> AddFill:
        number = self._choose.randrange(_FILLS)
        owner = self._choose.choice(self._slots) if self._choose.randrange(10) == 0 else slot
        role, amount = ("entry", "2.5") if number < _FILLS // 2 else ("exit", "2")
        fill = {
            "fill_id": f"v-{owner.trade_id}-{number}",
            "role": role,
            "amount": amount,
            "price": str(95 + number * 2),
            "fee": "0.01",
            "fee_currency": "USDT",
            "at": NOW_US + number,
        }
        return AddFill(trade_id=slot.trade_id, fill=fill, **about)

    def update(self, slot: _Slot, about: dict[str, Any]) -> UpdateTrade:
        changes: dict[str, Any] = {"stop_loss": f"{self._choose.randrange(1, 10**6)}.5"}
        if self._choose.randrange(8) == 0:
            changes = {"status": self._choose.choice(["submitted", "cancelled"])}
        expected = self._choose.randint(1, 9) if self._choose.randrange(5) == 0 else None
        return UpdateTrade(trade_id=slot.trade_id, changes=changes, expected_version=expected, **about)

    def close(self, slot: _Slot, about: dict[str, Any]) -> CloseTrade:
        amount = "1" if self._choose.randrange(2) else None
        return CloseTrade(trade_id=slot.trade_id, price="105", amount=amount, **about)

    def pnl(self, slot: _Slot, about: dict[str, Any]) -> UpdateTradePnl:
        return UpdateTradePnl(trade_id=slot.trade_id, pnl=str(self._choose.randint(-50, 50)), **about)

    def tokens(self, slot: _Slot, about: dict[str, Any]) -> UpdateTokens:
        told = self._choose.sample(_ASSETS, self._choose.randint(1, 2))
        tokens = {asset: str(self._choose.randrange(1, 10**6)) for asset in told}
        return UpdateTokens(user_id=slot.user_id, tokens=tokens, **about)

    def reserve(self, slot: _Slot, about: dict[str, Any]) -> ReserveTokens:
        number = self._choose.randrange(_RESERVATIONS)
        asset, amount = _ASSETS[number % 2], str(10 + number)
        return ReserveTokens(
            user_id=slot.user_id, asset=asset, amount=amount, key=f"r{number}", ttl_s=_TTL_S, **about
        )

    def settle(self, slot: _Slot, about: dict[str, Any]) -> SettleTokens:
        number = self._choose.randrange(_RESERVATIONS)
        name = reservation_id(slot.user_id, "default", f"r{number}")
        other = _ASSETS[1 - number % 2]
        return SettleTokens(reservation_id=name, spent=str(number), received={other: "3"}, **about)

    def release(self, slot: _Slot, about: dict[str, Any]) -> ReleaseTokens:
        number = self._choose.randrange(_RESERVATIONS)
        return ReleaseTokens(reservation_id=reservation_id(slot.user_id, "default", f"r{number}"), **about)


_MAKERS: dict[Callable[[_Writer, _Slot, dict[str, Any]], Command], int] = {
    _Writer.add: 20,
    _Writer.add_own: 8,
    _Writer.fill: 26,
    _Writer.update: 14,
    _Writer.close: 4,
    _Writer.pnl: 3,
    _Writer.tokens: 12,
    _Writer.reserve: 7,
    _Writer.settle: 3,
    _Writer.release: 3,
}
