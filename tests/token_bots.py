"""Bots that reserve, settle and release tokens of one account at once, and what the journal must say of it.

Run as a program it is one process of them: `python -m tests.token_bots URL SEED THREADS STEPS`, which writes
a line for each receipt as soon as it has it: `<command id> <outcome> <key> <status>`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.loose_trades import buy
from tradepool.clock import now_us
from tradepool.commanding import new_command_id
from tradepool.errors import Contended, Rejected
from tradepool.files.reading import read_lines
from tradepool.model.commands import AddTrade, Command
from tradepool.model.ledger import reservation_id
from tradepool.model.receipt import Receipt
from tradepool.model.token_commands import ReleaseTokens, ReserveTokens, SettleTokens
from tradepool.pool import TradePool
from tradepool.settings import Settings

__all__ = ["FUNDS", "USER", "History", "Told", "history_of", "run_bots", "told_in"]

USER = "ann"
FUNDS = 20
_RECENT = 20
_TTLS_S = ("0.02", "0.1", "60")


class Told(NamedTuple):
    """One receipt, as the bot that got it saw it."""

    command_id: str
    outcome: str
    key: str
    status: str


class History(NamedTuple):
    """What the journal says of the account and its trades."""

    versions: int
    commands: list[str]
    opened: list[str]
    resolved: dict[str, str]
    trades: set[str]
    reserved_max: Decimal
    reused: set[str]
    """Keys of expired ones that the ledger had forgotten by the time a process that was slow asked again."""


def run_bots(pool: TradePool, *, seed: int, threads: int, steps: int, tell: Callable[[Told], None]) -> None:
    """Let so many bots take so many steps each; every receipt is told."""
    with ThreadPoolExecutor(threads) as executor:
        bots = [_Bot(pool, f"{seed}.{number}", tell) for number in range(threads)]
        for done in [executor.submit(bot.work, steps) for bot in bots]:
            done.result()


class _Bot:
    def __init__(self, pool: TradePool, name: str, tell: Callable[[Told], None]) -> None:
        self._pool = pool
        self._name = name
        self._tell = tell
        self._random = random.Random(name)
        self._sent: list[Command] = []
        self._keys: list[str] = []

    def work(self, steps: int) -> None:
        for step in range(steps):
            match self._random.randrange(10):
                case 0 | 1 | 2:
                    self._send(self._reserve(f"{self._name}-{step}"))
                case 3 | 4:
                    self._send(self._reserve(f"shared-{step // 8}.{self._random.randrange(4)}"))
                case 5:
                    self._send(self._add(f"{self._name}-{step}"))
                case 6 if self._sent:
                    self._send(self._random.choice(self._sent[-_RECENT:]))
                case 7 if self._random.random() < 0.2:
                    self._pool.expire_reservations()
                case _ if self._keys:
                    self._send(self._resolve(self._random.choice(self._keys[-_RECENT:])))

    def _send(self, command: Command) -> None:
        self._sent.append(command)
        result: Any = None
        while result is None:
            try:
                result = self._pool.apply([command])[0]
            except Contended:
                continue
        if isinstance(result, Rejected):
            return
        assert isinstance(result, Receipt)
        assert result.reservation is not None
        assert result.outcome != "applied" or result.durable
        key = result.reservation.key
        self._keys.append(key)
        self._tell(Told(command.command_id, result.outcome, key, result.reservation.status))

    def _reserve(self, key: str) -> ReserveTokens:
        return ReserveTokens(**_head(), user_id=USER, key=key, **self._wanted(key))

    def _add(self, trade_id: str) -> AddTrade:
        trade = buy(trade_id=f"trade-{trade_id}", user_id=USER)
        return AddTrade(**_head(), trade=trade, reserve=self._wanted(trade_id))

    def _wanted(self, key: str) -> dict[str, Any]:
        return {"asset": "USDT", "amount": 1 + len(key) % 3, "ttl_s": self._random.choice(_TTLS_S)}

    def _resolve(self, key: str) -> SettleTokens | ReleaseTokens:
        name = reservation_id(USER, "default", key)
        if self._random.random() < 0.5:
            return ReleaseTokens(**_head(), reservation_id=name)
        # What is spent comes back, so that there is always something to quarrel about.
        return SettleTokens(**_head(), reservation_id=name, spent=1, received={"USDT": 1})


def _head() -> dict[str, Any]:
    return {"command_id": new_command_id(), "as_of": now_us()}


def told_in(text: str) -> Iterator[Told]:
    """The receipts in what a process of bots has written; a torn last line is none."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield Told(*line.split())


def history_of(log: Path) -> History:
    """Every version of the account in the journal, checked one by one by rules written down here anew."""
    history = History(0, [], [], {}, set(), Decimal(0), set())
    before: dict[str, Any] = {}
    places: dict[str, set[str]] = {"t": set(), "l": set()}
    for line in read_lines(log):
        places[line.kind].add(line.position)
        if line.kind == "t":
            history.trades.add(line.record_id)
            continue
        after = msgspec.json.decode(line.record)
        _check_step(before, after, history)
        history.commands.append(line.command_id)
        amounts = [Decimal(hold[1]) for hold in after.get("reservations", {}).values()]
        most = max(history.reserved_max, sum(amounts, Decimal(0)))
        history = history._replace(versions=after["version"], reserved_max=most)
        before = after
    assert places["t"] <= places["l"], "a trade with a reservation is in one commit with it"
    return history


def _check_step(before: dict[str, Any], after: dict[str, Any], history: History) -> None:
    """Nothing is reserved that is not there, nothing twice, and what is resolved was open."""
    assert after["version"] == before.get("version", 0) + 1
    was, now = before.get("reservations", {}), after.get("reservations", {})
    usdt = after["assets"]["USDT"]
    reserved = sum((Decimal(hold[1]) for hold in now.values()), Decimal(0))
    assert Decimal(usdt.get("reserved", "0")) == reserved <= Decimal(usdt["free"]) == FUNDS
    for key in now.keys() - was.keys():
        if key in history.resolved:
            assert key not in before["resolved"], "a key stands for one reservation while it is known"
            assert history.resolved.pop(key) == "expired"
            history.reused.add(key)
        else:
            history.opened.append(key)
    for key in was.keys() - now.keys():
        status = after["resolved"][key][4] if key in after.get("resolved", {}) else "expired"
        assert key not in history.resolved, f"{key} is resolved twice"
        history.resolved[key] = status


def _main(url: str, seed: str, threads: str, steps: str) -> None:
    def tell(told: Told) -> None:
        sys.stdout.write(" ".join(told) + "\n")
        sys.stdout.flush()

    with TradePool.connect(Settings(redis_url=url)) as pool:
        run_bots(pool, seed=int(seed), threads=int(threads), steps=int(steps), tell=tell)


if __name__ == "__main__":
    _main(*sys.argv[1:])
