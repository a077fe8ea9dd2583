"""The measurements themselves: disk and server bare, then the pool on top of them, then a fleet."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradepool.bench.figure import Figure, percentile_ms, rate_for, times_of
from tradepool.bench.trades import PRICES, Trades
from tradepool.client import PoolClient
from tradepool.errors import JournalUnavailable
from tradepool.fleet.health import read_health
from tradepool.fleet.programs import fleet_programs, generated_login
from tradepool.fleet.state import Watcher
from tradepool.fleet.supervisor import Supervisor
from tradepool.pool import TradePool
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings

__all__ = ["measure_embedded", "measure_fleet"]

BATCH = 200
CLIENT_BATCHES = 10
CALLS_MAX = 2000
START_TIMEOUT_S = 60.0
_POLL_S = 0.05
_SYNC_BYTES = 4096
_VALUE = bytes(400)
"""As large as a stored trade."""
_PROBE_KEY = "tradepool-bench"
_SYNC, _SET = "fdatasync of a page, p50", "plain SETs"


def measure_embedded(folder: Path, seconds: float) -> list[Figure]:
    """What the pool in this process does on `folder`'s disk, in `seconds` in all, about."""
    part_s = seconds / 5
    with TradePool.embedded(folder) as pool:
        bare, sync_ms, sets = _bare(folder, pool, part_s)
        trades = Trades()
        taken = times_of(lambda: pool.add_trade(next(trades.take(1))), part_s, CALLS_MAX)
        rate = rate_for(part_s, lambda: len(pool.add_trades(list(trades.take(BATCH)))))
        return [
            *bare,
            *_latency("one trade, added and journaled", taken, sync_ms),
            _rate("trades added and journaled, 200 a call", rate, sets),
            *_marks(pool, part_s),
        ]


def measure_fleet(folder: Path, seconds: float) -> list[Figure]:
    """What a fleet of this machine's size does behind a client."""
    part_s = seconds / 4
    with (
        _fleet(folder) as settings,
        TradePool.connect(settings) as pool,
        PoolClient.connect(settings) as client,
    ):
        trades = Trades()
        # Until all workers are up.
        _confirmed(client, [client.add_trade(next(trades.take(1)))])
        bare, sync_ms, sets = _bare(folder, pool, part_s / 2)

        def add_one() -> None:
            _confirmed(client, [client.add_trade(next(trades.take(1)))])

        def add_many() -> int:
            ids = client.add_trades(list(trades.take(CLIENT_BATCHES * BATCH)))
            _flushed(client)
            return len(ids)

        taken = times_of(add_one, part_s, CALLS_MAX)
        return [
            *bare,
            *_latency("one trade, sent by a bot until it knows", taken, sync_ms),
            _rate("trades sent and journaled, in chunks", rate_for(2 * part_s, add_many), sets),
        ]


def _bare(folder: Path, pool: TradePool, seconds: float) -> tuple[list[Figure], float, float]:
    """Disk and server without us: their figures, a sync in ms, SETs a second."""
    with (folder / "probe").open("wb", buffering=0) as file:

        def sync() -> None:
            file.write(bytes(_SYNC_BYTES))
            os.fdatasync(file.fileno())

        sync_ms = percentile_ms(times_of(sync, seconds / 2, CALLS_MAX), 50)

    def set_some() -> int:
        pipeline = pool.redis.pipeline(transaction=False)
        for number in range(BATCH):
            pipeline.set(f"{_PROBE_KEY}:{number}", _VALUE)
        return len(pipeline.execute())

    sets = rate_for(seconds / 2, set_some)
    figures = [Figure(what=_SYNC, value=sync_ms, unit="ms"), Figure(what=_SET, value=sets, unit="/s")]
    return figures, sync_ms, sets


def _marks(pool: TradePool, seconds: float) -> Iterator[Figure]:
    pool.set_prices(PRICES)
    # The first one compiles or loads what marks.
    pool.mark_to_market()
    taken = times_of(pool.mark_to_market, seconds, CALLS_MAX)
    yield Figure(what="all open trades marked anew, p50", value=percentile_ms(taken, 50), unit="ms")


def _latency(what: str, taken: list[float], sync_ms: float) -> Iterator[Figure]:
    for percent in (50, 99):
        value = percentile_ms(taken, percent)
        yield Figure(
            what=f"{what}, p{percent}", value=value, unit="ms", compared_with=_SYNC, ratio=value / sync_ms
        )


def _rate(what: str, rate: float, sets: float) -> Figure:
    return Figure(what=what, value=rate, unit="/s", compared_with=_SET, ratio=rate / sets)


def _confirmed(client: PoolClient, trade_ids: list[str]) -> None:
    if not all(client.confirm(trade_ids, START_TIMEOUT_S).values()):
        raise JournalUnavailable(
            f"the fleet did not journal a trade within {START_TIMEOUT_S:.0f} s; is it busy?"
        )


def _flushed(client: PoolClient) -> None:
    if not client.flush(START_TIMEOUT_S):
        raise JournalUnavailable(
            f"{client.pending()} trades were not journaled within {START_TIMEOUT_S:.0f} s"
        )


def _await_open(settings: Settings) -> None:
    """Wait until the fleet has opened the store; a client that comes before says that it cannot confirm."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with Watcher(settings) as watcher:
        while read_health(watcher).is_fenced:
            if time.monotonic() > deadline:
                raise JournalUnavailable(
                    f"the fleet did not open the store within {START_TIMEOUT_S:.0f} s; is it busy?"
                )
            time.sleep(_POLL_S)


@contextmanager
def _fleet(folder: Path) -> Iterator[Settings]:
    """A server and workers of our own; whatever server the environment names is not touched."""
    with EmbeddedServer(folder, port=0) as server:
        settings = server.settings(
            data_dir=folder,
            audit_webhook_url=None,
            audit_webhook_url_file=None,
            flower_basic_auth=generated_login(),
        )
        needed = [
            program for program in fleet_programs(settings) if program.name.startswith(("files", "trades"))
        ]
        with Supervisor(settings, needed):
            _await_open(settings)
            yield settings
