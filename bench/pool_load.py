"""What the measurements feed a pool with, and the pool they feed: trades, and producers beside a journal.

`LoadedPool` is a small fleet: a server, the journal in a process of its own, and producers in processes of
theirs, each with a connection of its own. Producers make their commands before the clock runs.
"""

from __future__ import annotations

import gc
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from bench.measurement import Numbers
from tradepool import Settings, TradePool
from tradepool.journaling.service import JournalService
from tradepool.model.commands import Command
from tradepool.server.embedded import EmbeddedServer
from tradepool.store.connection import Client, connect

__all__ = [
    "BATCH",
    "PRODUCERS",
    "LoadedPool",
    "Work",
    "add_work",
    "apply_all",
    "fill",
    "mixed_add_work",
    "pin_append_only_file",
    "trade",
    "trades",
    "value_bytes",
]

PRODUCERS = 3
BATCH = 200
"""Commands in one commit: what one message of the fleet carries at most."""
USERS = 2_000
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "DEFI/USDT", "PEPE/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT")
RISING = 0.4
START_S = 1_742_428_800
"""2025-03-20, when the first trade happens; each one later by a second."""
_TIMEOUT_S = 600.0
_SETTLED_S = 0.5
_FILL_ROUND = 10_000
"""Trades that each producer adds at once while a pool is filled."""

Work = Callable[[TradePool, int, int], Callable[[], object]]
"""(pool, producer, count) → what that producer does once the clock runs; made before, untimed."""


def trade(number: int, *, per_user: int = BATCH) -> dict[str, Any]:
    """The dictionary of trade `number` as a bot sends it: a filled order with its signals, all digits random.

    `per_user` trades in a row are of one user, then comes the next: a message of the fleet carries what one
    bot has collected.
    """
    draw = random.Random(number)  # noqa: S311 - measurements need the same trades again, not secrets
    rising = draw.random() < RISING
    price = round(10 ** draw.uniform(-3, 4.8), 8)
    return {
        "symbol": SYMBOLS[int(len(SYMBOLS) * draw.random() ** 2)],
        "side": draw.choice(("buy", "sell")),
        "amount": f"{draw.uniform(10, 1000) / price:.8f}",
        "price": f"{price:.8f}",
        "timestamp": START_S + number,
        "order_type": "market",
        "exchange": "mexc",
        "strategy": draw.choice(("rsi", "trend", "momentum")),
        "user_id": f"USER{number // per_user % USERS}",
        "signals": {
            "signal_generator": draw.randint(-1, 1),
            "strategy_signals": {"rsi": draw.randint(-1, 1)},
            "combined_signal": draw.randint(-1, 1),
        },
        "market_conditions": {
            "avg_volatility": round(draw.random(), 4),
            "avg_drop": round(draw.random(), 4),
            "trend": "up" if rising else "flat",
        },
        "status": "filled",
        "source": "real",
    }


def trades(first: int, count: int, *, per_user: int = BATCH) -> Iterator[dict[str, Any]]:
    """`count` trades from number `first` on."""
    return (trade(number, per_user=per_user) for number in range(first, first + count))


def value_bytes(pool: TradePool, trade_id: str) -> int:
    """The size of a trade's stored value."""
    shard = pool.store.shard_of_trade(trade_id)
    assert shard is not None
    value = pool.store.read([(shard, trade_id)])[0]
    assert value is not None
    return len(value)


def apply_all(pool: TradePool, batches: Sequence[Sequence[Command]]) -> int:
    """Apply all of them as `add_trades` does, the journal's waits overlapping; how many were applied.

    Raises: Rejected, the first one.
    """
    applied = 0
    for results in pool.core.apply_all(batches):
        for result in results:
            if isinstance(result, Exception):
                raise result
            applied += result.outcome == "applied"
    return applied


def add_work(pool: TradePool, producer: int, count: int) -> Callable[[], object]:
    """Adding `count` trades, given as dictionaries, each message of 200 from one user."""
    given = list(trades(producer * count, count))
    return lambda: pool.add_trades(given)


def mixed_add_work(pool: TradePool, producer: int, count: int) -> Callable[[], object]:
    """The same where each trade is of another user, so that every message touches every shard."""
    given = list(trades(producer * count, count, per_user=1))
    return lambda: pool.add_trades(given)


class LoadedPool:
    """A server, a journal process and `producers` producer processes, all under `folder`.

    A context manager.
    """

    def __init__(self, folder: Path, producers: int = PRODUCERS) -> None:
        self._resources = ExitStack()
        self.server = self._resources.enter_context(EmbeddedServer(folder))
        self.settings = Settings(redis_url=self.server.url, data_dir=folder)
        self._journal = self._spawn(_keep_journal, self.settings)
        self.pool = self._resources.enter_context(TradePool.connect(self.settings))
        pin_append_only_file(self.pool.redis)
        self._producers = [self._spawn(_produce, self.settings, number) for number in range(producers)]

    def rate(self, work: Work, count: int) -> float:
        """Commands a second, all producers together, each doing `work` with `count` of them."""
        return self._round(work, count)[0]

    def processor_us(self, work: Work, count: int) -> Numbers:
        """Processor time that each kind of process spends on one command of such a round, µs."""
        return self._round(work, count)[1]

    def _round(self, work: Work, count: int) -> tuple[float, Numbers]:
        for pipe in self._producers:
            pipe.send((work, count))
        made = sum(_heard(pipe) for pipe in self._producers)
        server, journal = self._server_s(), self._journal_s()
        started = time.perf_counter()
        for pipe in self._producers:
            pipe.send("go")
        done = sum(_heard(pipe) for pipe in self._producers)
        commands = count * len(self._producers)
        spent = {
            "server_us": self._server_s() - server,
            "journal_us": self._journal_s() - journal,
            "producers_us": done - made,
        }
        each = {name: spent_s / commands * 1e6 for name, spent_s in spent.items()}
        return commands / (time.perf_counter() - started), each

    def _server_s(self) -> float:
        used = self.pool.redis.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def _journal_s(self) -> float:
        self._journal.send("how long")
        return _heard(self._journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _spawn(self, body: Callable[..., None], *args: object) -> Connection:
        """Start a process that runs `body` and ends when our end of its pipe is closed."""
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=body, args=(theirs, *args), daemon=True)
        process.start()
        theirs.close()
        self._resources.callback(process.join)
        self._resources.callback(ours.close)
        _heard(ours)
        return ours


def fill(loaded: LoadedPool, wanted: int) -> int:
    """Add at least `wanted` trades and wait until the journal has them; how many there are."""
    added = 0
    while added < wanted:
        added += PRODUCERS * (each := min(_FILL_ROUND, -(-(wanted - added) // PRODUCERS)))
        loaded.rate(add_work, each)
    deadline = time.monotonic() + _TIMEOUT_S
    while any(loaded.pool.store.outbox_lengths()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the journal is not done within {_TIMEOUT_S:.0f} s")
        time.sleep(_SETTLED_S)
    # What the server frees lazily goes, and the buffers of its clients.
    time.sleep(_SETTLED_S)
    return added


def pin_append_only_file(server: Client) -> None:
    """Keep the server from rewriting its append-only file: a fork in the middle halves every rate."""
    server.config_set("auto-aof-rewrite-percentage", 0)


def _keep_journal(pipe: Connection, settings: Settings) -> None:
    with closing(connect(settings)) as client, closing(JournalService(settings, client)) as journal:
        journal.recover()
        journal.start()
        pipe.send(time.process_time())
        with suppress(EOFError):
            while pipe.recv():
                pipe.send(time.process_time())


def _produce(pipe: Connection, settings: Settings, producer: int) -> None:
    with TradePool.connect(settings) as pool:
        pipe.send(time.process_time())
        with suppress(EOFError):
            while True:
                work, count = pipe.recv()
                made = work(pool, producer, count)
                gc.collect()
                pipe.send(time.process_time())
                pipe.recv()
                made()
                pipe.send(time.process_time())


def _heard(pipe: Connection) -> float:
    """A process's next word: its processor time so far, seconds.

    Raises: ChildProcessError when it has ended, or takes too long.
    """
    try:
        if pipe.poll(_TIMEOUT_S):
            return float(pipe.recv())
    except EOFError:
        pass
    raise ChildProcessError("a process of the measurement ended; its own error stands above")
