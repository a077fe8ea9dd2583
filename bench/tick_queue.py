"""From a price tick on the queue to readable marks: through the real broker, gpu worker and store.

    python bench/tick_queue.py [--quick] [--json] [--rows ROWS] [--symbols SYMBOLS]

One server holds queue and store, on a unix socket with its append-only file; it is filled with 10⁶ open
trades of 2,000 users, as recovery does it, without a journal. One gpu worker, as `tradepool up` starts it. A
tick is a message with 1,000 prices; its marks are readable when the entry of the stream of marks can be read.

`tick` is one tick at a time, from before it is sent; `direct` the same tick by a call in this process, on a
book of its own, without queue and worker. `flood` is 200 ticks sent as fast as they go: how many were marked,
and when the newest was, since it was sent. `marked_per_s` counts what one device marks while more ticks come
than it can mark.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bench.measurement import Numbers, median_ratio, percentiles_ms, run
from bench.pool_load import SYMBOLS, pin_append_only_file
from bench.queries import fill_store
from tradepool import Settings, TradePool, wire
from tradepool.broker import ChangeSender
from tradepool.fleet.programs import fleet_programs
from tradepool.fleet.supervisor import Supervisor
from tradepool.server.embedded import EmbeddedServer

__all__ = ["measure"]

ROWS = 1_000_000
QUICK_ROWS = 10_000
PRICES = 1_000
ROUNDS = 100
QUICK_ROUNDS = 30
FLOOD = 200
_WAIT_MS = 300_000
_TASK = "tasks.pnl.mark_to_market"


class Feed:
    """Sends ticks, each with prices of its own, and waits for their marks."""

    def __init__(self, pool: TradePool, sender: ChangeSender, symbols: int) -> None:
        self._pool = pool
        self._sender = sender
        self._names = [*SYMBOLS, *(f"S{number}/USDT" for number in range(symbols - len(SYMBOLS)))]
        self._times = count(1_750_000_000_000_000, 1000)
        self._last = "0"

    def prices(self, at: int) -> dict[str, str]:
        """What every symbol costs at `at`."""
        return {name: f"{100 + (at // 1000 + place) % 97}.25" for place, name in enumerate(self._names)}

    def send(self) -> int:
        """Send the next tick; its time."""
        at = next(self._times)
        self._sender.call(wire.QUEUE_GPU, _TASK, [self.prices(at), at])
        return at

    def wait(self, at: int) -> int:
        """Return once the marks of `at` are readable; how many were made until then."""
        for marked in count(1):
            if self._next() == at:
                return marked
        raise AssertionError

    def direct(self) -> float:
        """Mark the next tick by a call; the seconds it takes."""
        at = next(self._times)
        prices = self.prices(at)
        started = time.perf_counter()
        self._pool.mark_to_market(prices, at=at)
        taken_s = time.perf_counter() - started
        assert self.wait(at) == 1
        return taken_s

    def queued(self) -> float:
        """Send the next tick; the seconds until its marks are readable."""
        started = time.perf_counter()
        self.wait(self.send())
        return time.perf_counter() - started

    def _next(self) -> int:
        key = self._pool.store.keys.mark_stream
        found: Any = self._pool.redis.xread({key: self._last}, count=1, block=_WAIT_MS)
        assert found, "no marks: see logs/gpu.log"
        # A list of [key, entries], or a dict of them, as the protocol has it.
        entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
        self._last, fields = entries[0]
        return int(fields[b"at"])


def measure(*, quick: bool, rows: int | None = None, symbols: int | None = None) -> Numbers:
    """Percentiles of the way through the queue and of the call alone, and what a flood of ticks comes to."""
    size = rows or (QUICK_ROWS if quick else ROWS)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        settings = Settings(
            redis_url=server.url,
            data_dir=Path(folder) / "worker",
            socket_timeout_s=2 * _WAIT_MS / 1000,
            flower_basic_auth=SecretStr("not:started"),
        )
        with server.client() as client:
            pin_append_only_file(client)
            fill_store(client, settings, size, open_every=1)
        with TradePool.connect(settings) as pool, ChangeSender(settings) as sender:
            feed = Feed(pool, sender, symbols or PRICES)
            feed.direct()
            with _worker(settings):
                feed.queued()
                numbers = _alternating(rounds, tick=feed.queued, direct=feed.direct)
                return {"rows": size, **numbers, **_flood(feed)}


def _alternating(rounds: int, *, tick: Callable[[], float], direct: Callable[[], float]) -> Numbers:
    """Both in turns, so that whatever slows the machine for a while slows both."""
    ticks, directs = zip(*((tick(), direct()) for _ in range(rounds)), strict=True)
    ratio = {"tick_to_direct_ratio": median_ratio(ticks, directs)}
    return percentiles_ms("tick", ticks) | percentiles_ms("direct", directs) | ratio


def _flood(feed: Feed) -> Numbers:
    started = time.perf_counter()
    for _ in range(FLOOD):
        newest = feed.send()
    sent = time.perf_counter()
    marked = feed.wait(newest)
    done = time.perf_counter()
    return {
        "flood_ticks": FLOOD,
        "flood_sent_per_s": FLOOD / (sent - started),
        "flood_marked": marked,
        "flood_stale": FLOOD - marked,
        "flood_newest_ms": (done - sent) * 1e3,
        "marked_per_s": marked / (done - started),
    }


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    programs = [program for program in fleet_programs(settings) if program.name == "gpu"]
    with Supervisor(settings, programs):
        yield


if __name__ == "__main__":
    run(measure)
