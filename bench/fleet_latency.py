"""How long one trade takes through the fleet, from `PoolClient.add_trade` until it is known as journaled.

    python bench/fleet_latency.py [--quick] [--json]

A server, the files worker with the journal and one trades worker, as `tradepool up` starts them on two cores.
A probe is one trade of a client that has nothing else under way; then the watermark is asked until it has it,
a millisecond between the questions. `idle`: nothing else is sent. `half_load`: another process sends chunks
from bots at half the rate that the same fleet took in this run. `fdatasync` is the disk's bare sync, `direct`
a pool's own `add_trade` beside the same journal: what is between it and `idle` is the way through the broker.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.latency import sync_times
from bench.measurement import Numbers, percentiles_ms, run, seconds
from bench.pool_load import pin_append_only_file, trade, trades
from tradepool import PoolClient, Settings, TradePool
from tradepool.client.confirmation import Confirmation
from tradepool.fleet.programs import environment, fleet_programs, generated_login
from tradepool.server.embedded import EmbeddedServer

__all__ = ["measure"]

PROBES = 200
CAPACITY_TRADES = 8_000
CHUNK = 50
WARM_UP = 20
_PAUSE_S = 0.02
_POLL_S = 0.001
_TIMEOUT_S = 60.0
_PROBED_FROM = 10_000_000
"""Numbers of trades that are probes."""


def measure(*, quick: bool) -> Numbers:
    """Percentiles at idle and at half load."""
    divisor = 4 if quick else 1
    with tempfile.TemporaryDirectory() as name, ExitStack() as resources:
        folder = Path(name)
        numbers = sync_times(folder)
        settings = resources.enter_context(_fleet(folder))
        pool = resources.enter_context(TradePool.connect(settings))
        pin_append_only_file(pool.redis)
        client = resources.enter_context(PoolClient.connect(settings))
        prober = _Prober(client, pool)
        # Until the workers are up.
        client.confirm([client.add_trade(trade(_PROBED_FROM))], _TIMEOUT_S)
        prober.times(WARM_UP)
        numbers |= percentiles_ms("direct", _direct(pool, PROBES // divisor))
        numbers |= percentiles_ms("idle", prober.times(PROBES // divisor))
        rate = _capacity(client, CAPACITY_TRADES // divisor)
        with _load(settings, rate / 2):
            numbers |= percentiles_ms("half_load", prober.times(PROBES // divisor))
    return {**numbers, "capacity_per_s": rate}


class _Prober:
    def __init__(self, client: PoolClient, pool: TradePool) -> None:
        self._client = client
        self._confirmation = Confirmation(pool.redis, pool.store)
        self._number = _PROBED_FROM

    def times(self, count: int) -> list[float]:
        """Seconds of each of `count` probes, which come when they please."""
        taken = []
        for _ in range(count):
            time.sleep(random.uniform(0, 2 * _PAUSE_S))  # noqa: S311 - spreads probes, guards nothing
            self._number += 1
            # A probe stands alone: the client still confirms the one before now and then.
            self._client.flush(_TIMEOUT_S)
            taken.append(seconds(self._probe))
        return taken

    def _probe(self) -> None:
        trade_id = self._client.add_trade(trade(self._number))
        deadline = time.monotonic() + _TIMEOUT_S
        while not self._confirmation.is_journaled([trade_id])[trade_id]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"trade {trade_id} is not journaled")
            time.sleep(_POLL_S)


def _direct(pool: TradePool, count: int) -> list[float]:
    given = trades(2 * _PROBED_FROM, count)
    return [seconds(partial(pool.add_trade, one)) for one in given]


def _capacity(client: PoolClient, count: int) -> float:
    """Trades a second in chunks, enqueued to confirmed."""
    given = list(trades(0, count))

    def send() -> None:
        client.add_trades(given)
        if not client.flush(_TIMEOUT_S):
            raise TimeoutError(f"{client.pending()} trades are not journaled")

    return count / seconds(send)


@contextmanager
def _load(settings: Settings, rate: float) -> Iterator[None]:
    """Another process that sends `rate` trades a second, in chunks of CHUNK."""
    context = multiprocessing.get_context("spawn")
    started, stop = context.Event(), context.Event()
    process = context.Process(target=_send, args=(settings, rate, started, stop), daemon=True)
    process.start()
    try:
        started.wait(_TIMEOUT_S)
        yield
    finally:
        stop.set()
        process.join()


def _send(settings: Settings, rate: float, started: Event, stop: Event) -> None:
    with PoolClient.connect(settings) as client:
        number, began = CAPACITY_TRADES, time.monotonic()
        while not stop.is_set():
            client.add_trades(trades(number, CHUNK))
            number += CHUNK
            started.set()
            time.sleep(max(0.0, began + (number - CAPACITY_TRADES) / rate - time.monotonic()))


@contextmanager
def _fleet(folder: Path) -> Iterator[Settings]:
    with ExitStack() as resources:
        server = resources.enter_context(EmbeddedServer(folder, port=0))
        settings = server.settings(
            data_dir=folder,
            cpu_threads=2,
            flower_basic_auth=generated_login(),
        )
        for program in fleet_programs(settings):
            if program.name in ("files", "trades-1"):
                resources.enter_context(_running(program.arguments, settings))
        yield settings


@contextmanager
def _running(arguments: tuple[str, ...], settings: Settings) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, *arguments], env=os.environ | environment(settings), stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)


if __name__ == "__main__":
    run(measure)
