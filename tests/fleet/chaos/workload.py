"""What the clients of a seed hand in: every command follows from seed, client and number.

A client hands its trades in by windows. Each command makes exactly one version of its record, so whoever
knows a record's version knows how many of its commands have taken effect.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model.ids import mint_id
from tradepool.model.ledger import ledger_id

__all__ = ["ASSET", "TOLD", "WINDOW_TRADES", "Step", "Window", "client_trades", "users_of", "windows_of"]

WINDOW_TRADES = 50
ASSET = "USDT"
TOLD = Decimal(10**9)
"""What the venue says is free, before anything is spent."""

_USERS = 12
"""Of each client."""
_RESERVED_EVERY = 10
_BEGAN_US = 1_790_000_000_000_000
_SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
_TTL_S = 30 * 86_400


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One command: it makes version `version` of the record `record_id`."""

    op: str
    """add · fill · update · close of a trade; told · settle of a ledger."""
    record_id: str
    version: int
    user_id: str
    given: dict[str, Any]
    beside: int = 0
    """The version that it makes of its user's ledger, where it is a trade's command that reserves."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Some trades of one client, and their commands in the order in which they are handed in."""

    number: int
    trade_ids: list[str]
    steps: list[Step]


def client_trades(trades: int, clients: int, client: int) -> int:
    """How many of `trades` are those of `client`."""
    return trades // clients + (client < trades % clients)


def users_of(client: int) -> list[str]:
    """Whose bots a client serves; nobody else's."""
    return [f"c{client}-user-{number}" for number in range(_USERS)]


def windows_of(seed: int, client: int, trades: int) -> Iterator[Window]:
    """All that a client hands in."""
    ledgers: Counter[str] = Counter()
    for number, first in enumerate(range(0, trades, WINDOW_TRADES)):
        choose = random.Random(f"chaos {seed} {client} {number}")
        numbers = range(first, min(first + WINDOW_TRADES, trades))
        yield _window(number, [_Life(choose, client, n) for n in numbers], ledgers)


def _window(number: int, lives: list[_Life], ledgers: Counter[str]) -> Window:
    """Round by round: all first commands, then all second ones, so that a trade's are in several messages."""
    steps = [life.told(ledgers) for life in lives if life.number < _USERS]
    rounds = max(len(life.later) for life in lives)
    steps += [life.add(ledgers) for life in lives]
    for place in range(rounds):
        steps += [life.later[place] for life in lives if place < len(life.later)]
    steps += [life.settle(ledgers) for life in lives if life.reserves]
    return Window(number=number, trade_ids=[life.trade_id for life in lives], steps=steps)


class _Life:
    """One trade: what it is, and what becomes of it."""

    def __init__(self, choose: random.Random, client: int, number: int) -> None:
        self.number = number
        self.user_id = users_of(client)[number % _USERS]
        minted = mint_id(
            self.user_id, at_us=_BEGAN_US + number, random_bits=choose.getrandbits(40) << 8 | client
        )
        self.trade_id = f"c{client}-trade-{number}" if number % 4 == 0 else minted
        self.reserves = number % _RESERVED_EVERY == 0
        self._amount = 2 * choose.randint(1, 500)
        self._price = choose.randint(90, 110)
        self._symbol = choose.choice(_SYMBOLS)
        self.later = self._later(choose)

    def told(self, ledgers: Counter[str]) -> Step:
        """The venue's snapshot, before the user's first trade."""
        return self._ledger_step("told", ledgers, {"tokens": {ASSET: str(TOLD)}})

    def add(self, ledgers: Counter[str]) -> Step:
        """The trade, every tenth with its tokens set aside."""
        trade = {
            "trade_id": self.trade_id,
            "user_id": self.user_id,
            "symbol": self._symbol,
            "exchange": "kraken",
            "side": "buy",
            "amount": str(self._amount),
            "price": str(self._price),
        }
        if not self.reserves:
            return self._step("add", 1, {"trade": trade})
        ledgers[self.user_id] += 1
        reserve = {
            "asset": ASSET,
            "amount": str(self._cost()),
            "ttl_s": _TTL_S,
            "key": f"for-{self.trade_id}",
        }
        step = self._step("add", 1, {"trade": trade, "reserve": reserve})
        return msgspec.structs.replace(step, beside=ledgers[self.user_id])

    def settle(self, ledgers: Counter[str]) -> Step:
        """Its tokens are spent: all of what was set aside."""
        given = {"key": f"for-{self.trade_id}", "spent": str(self._cost())}
        return self._ledger_step("settle", ledgers, given)

    def _later(self, choose: random.Random) -> list[Step]:
        """Four trades of ten stay as they are; others are filled, changed, closed."""
        turn = choose.randrange(10)
        if turn < 4:
            return []
        later = [self._fill(2, 0), self._fill(3, 1)]
        if turn >= 7:
            later.append(self._step("update", 4, {"stop_loss": f"{choose.randint(1, 10**6)}.5"}))
        if turn >= 8:
            price = self._price + choose.randint(-20, 20)
            later.append(self._step("close", len(later) + 2, {"price": str(price)}))
        return later

    def _fill(self, version: int, part: int) -> Step:
        fill = {
            "fill_id": f"{self.trade_id}/{part}",
            "role": "entry",
            "amount": str(self._amount // 2),
            "price": str(self._price),
            "at": _BEGAN_US + self.number,
        }
        return self._step("fill", version, {"fill": fill})

    def _cost(self) -> int:
        return self._amount * self._price

    def _step(self, op: str, version: int, given: dict[str, Any]) -> Step:
        return Step(op=op, record_id=self.trade_id, version=version, user_id=self.user_id, given=given)

    def _ledger_step(self, op: str, ledgers: Counter[str], given: dict[str, Any]) -> Step:
        ledgers[self.user_id] += 1
        version, record_id = ledgers[self.user_id], ledger_id(self.user_id)
        return Step(op=op, record_id=record_id, version=version, user_id=self.user_id, given=given)
