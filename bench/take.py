"""How fast a worker takes messages from the broker: kombu's own transport, and the atomic one.

    python bench/take.py [--quick] [--json] [--messages N]

One server on a loopback port, with its append-only file. Messages wait on a queue that nobody consumes; the
clock runs from when it is renamed to the queue of one worker until all are acknowledged. The task does
nothing, so the numbers are those of taking: `small` messages have an argument of 20 bytes, `chunk` ones carry
100 kB, as a chunk of 200 trades does. Workers: `threads` with 8 threads as in the fleet, `prefork` with 2
children; each prefetches one message per thread or child. Rounds alternate between the transports.
`commands` are what the server executed for a message, scripts and what they call counted each; `worker_us`
and `server_us` are processor time for a message: of the worker, children included, and of the server, this
program's looking whether all is done included. A rate is as noisy as the machine; the ratio of both
transports' processor times, `…_cpu_ratio`, hardly is.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import redis
from celery import Celery

from bench.measurement import Numbers, median_ratio, medians, rounds_of, run
from bench.pool_load import pin_append_only_file
from tasks import reliability
from tasks.config import celery_settings
from tasks.events import EventBatches
from tasks.transport import choose_transport
from tradepool import Settings, wire
from tradepool.broker import ChangeSender, queue_named
from tradepool.server.embedded import EmbeddedServer

__all__ = ["app", "measure"]

TASK = "bench.nothing"
WAITING = "waiting"
MESSAGES = {"small": 4000, "chunk": 800}
QUICK_DIVISOR = 10
ROUNDS = 3
WARM_UP = 20
SIZES = {"warm-up": 20, "small": 20, "chunk": 100_000}
POOLS = {"threads": 8, "prefork": 2}
TRANSPORTS = ("celery", "atomic")
_WAIT_S = 120.0
_POLL_S = 0.002


def _queue(transport: str, pool: str) -> str:
    return f"{transport}.{pool}"


def _app() -> Celery:
    """What the measured workers run: the fleet's configuration, and one task that does nothing."""
    wire.register_decoder()
    reliability.guard_restarts()
    reliability.guard_acknowledgements()
    reliability.guard_messages()
    settings = Settings()
    choose_transport(settings.broker_transport)
    made = Celery("bench", set_as_current=False)
    queues = [queue_named(_queue(transport, pool)) for transport in TRANSPORTS for pool in POOLS]
    made.conf.update(celery_settings(settings) | {"task_queues": queues})
    made.steps["consumer"].add(EventBatches)

    @made.task(name=TASK)
    def nothing(_argument: str) -> None:
        """Return."""

    return made


app = _app()


class Drain:
    """One server whose queue is filled and drained again and again."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._costs: dict[str, list[Numbers]] = {}

    def rate(self, transport: str, pool: str, kind: str, count: int, worker: psutil.Process) -> float:
        """Messages a second that one worker process takes."""
        queue = _queue(transport, pool)
        self._fill(kind, count)
        self._client.config_resetstat()
        server_s, worker_s = self._server_s(), _worker_s(worker)
        started = time.perf_counter()
        self._client.rename(WAITING, queue)
        _wait(lambda: not self._client.llen(queue) and not self._client.hlen("unacked"))
        taken_s = time.perf_counter() - started
        cost = {"commands": self._commands() / count}
        cost["server_us"] = (self._server_s() - server_s) * 1e6 / count
        cost["worker_us"] = (_worker_s(worker) - worker_s) * 1e6 / count
        self._costs.setdefault(f"{transport}_{pool}_{kind}", []).append(cost)
        return count / taken_s

    def cost(self, transport: str, pool: str, kind: str) -> Numbers:
        """What such a drain cost the worker and the server for a message: medians of all so far."""
        costs = self._costs[f"{transport}_{pool}_{kind}"]
        return {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}

    def _fill(self, kind: str, count: int) -> None:
        with ChangeSender(self._settings) as sender:
            for _ in range(count):
                sender.call(WAITING, TASK, ["x" * SIZES[kind]], argsrepr="<x>")

    def _commands(self) -> int:
        stats: Any = self._client.info("commandstats")
        # What this process asked itself is not the worker's.
        own = {"cmdstat_llen", "cmdstat_hlen", "cmdstat_rename", "cmdstat_config|resetstat", "cmdstat_info"}
        return sum(stat["calls"] for name, stat in stats.items() if name not in own)

    def _server_s(self) -> float:
        used: Any = self._client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _worker_s(worker: psutil.Process) -> float:
    """The processor time of a worker and its children so far."""
    return sum(sum(process.cpu_times()[:2]) for process in (worker, *worker.children(recursive=True)))


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the worker does not take messages"
        time.sleep(_POLL_S)


@contextmanager
def _worker(settings: Settings, transport: str, pool: str) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "celery", "-A", "bench.take", "worker", "-Q", _queue(transport, pool)]
    variables = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TRADEPOOL_REDIS_URL": settings.redis_url,
        "TRADEPOOL_BROKER_TRANSPORT": transport,
    }
    options = ["-P", pool, "-c", str(POOLS[pool]), "--loglevel", "ERROR", "-n", f"{transport}-{pool}@%h"]
    with subprocess.Popen(
        [*command, *options], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(_WAIT_S)


def measure(*, quick: bool, messages: int | None = None) -> Numbers:
    """Messages a second by transport, pool and size, what they cost, and how both transports compare."""
    numbers: Numbers = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), port=0) as server:
        settings = Settings(redis_url=server.url, data_dir=Path(folder) / "pool")
        with server.client() as client, ExitStack() as workers:
            pin_append_only_file(client)
            drain = Drain(client, settings)
            started: dict[str, dict[str, psutil.Process]] = {pool: {} for pool in POOLS}
            for pool in POOLS:
                for transport in TRANSPORTS:
                    worker = workers.enter_context(_worker(settings, transport, pool))
                    drain.rate(transport, pool, "warm-up", WARM_UP, worker)
                    started[pool][transport] = worker
            for pool in POOLS:
                for kind, usual in MESSAGES.items():
                    count = messages or (usual // QUICK_DIVISOR if quick else usual)
                    numbers |= _compared(drain, pool, kind, count, started[pool])
    return numbers


def _compared(
    drain: Drain, pool: str, kind: str, count: int, workers: Mapping[str, psutil.Process]
) -> Numbers:
    def rate_of(transport: str) -> Callable[[], float]:
        return lambda: drain.rate(transport, pool, kind, count, workers[transport])

    rates = rounds_of(ROUNDS, **{transport: rate_of(transport) for transport in TRANSPORTS})
    costs = {transport: drain.cost(transport, pool, kind) for transport in TRANSPORTS}
    return {
        **medians({f"{transport}_{pool}_{kind}_per_s": values for transport, values in rates.items()}),
        **{f"{t}_{pool}_{kind}_{name}": value for t, cost in costs.items() for name, value in cost.items()},
        f"{pool}_{kind}_atomic_to_celery_ratio": median_ratio(rates["atomic"], rates["celery"]),
        f"{pool}_{kind}_celery_to_atomic_cpu_ratio": costs["celery"]["worker_us"]
        / costs["atomic"]["worker_us"],
    }


if __name__ == "__main__":
    run(measure)
