"""The deep audit by the fleet's audit workers: how long one takes and how long two, and what memory it needs.

    python bench/audit_workers.py [--trades TRADES]

A pool is filled, audited by one worker process and then by two, and once more at twice the size. Peak memory
is that of the worker that needs most, above what it had after an audit of the digest level; what it grows by
between the two sizes, over the records that were added, is what a record costs. Processor time says how
evenly the parts fell, also where the machine has other things to do: two workers are as good as two when the
busier one did half.
"""

from __future__ import annotations

import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measurement import Numbers, run
from bench.pool_load import LoadedPool, fill
from tradepool import TradePool, wire
from tradepool.audit.parts.run_board import Ended
from tradepool.broker import ChangeSender
from tradepool.fleet.programs import environment

__all__ = ["measure"]

TRADES = 200_000
QUICK_TRADES = 30_000
ROUNDS = 3
_TIMEOUT_S = 900.0
_POLL_S = 0.01
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
_TICKS_PER_S = 100


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Seconds with one worker and with two, processor time, and bytes of memory a record."""
    wanted = trades or (QUICK_TRADES if quick else TRADES)
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        small = fill(loaded, wanted // 2)
        small_peak = _peak_growth(loaded)
        large = small + fill(loaded, wanted - small)
        large_peak = _peak_growth(loaded)
        with _workers(loaded, 1) as one:
            alone = [_deep(loaded, one) for _ in range(ROUNDS)]
        with _workers(loaded, 2) as two:
            together = [_deep(loaded, two) for _ in range(ROUNDS)]
    alone_s = statistics.median(round_.wall_s for round_ in alone)
    together_s = statistics.median(round_.wall_s for round_ in together)
    return {
        "trades": large,
        "one_worker_s": alone_s,
        "two_workers_s": together_s,
        "speedup_ratio": alone_s / together_s,
        "one_worker_processor_s": statistics.median(sum(round_.processor_s) for round_ in alone),
        "two_workers_processor_s": statistics.median(sum(round_.processor_s) for round_ in together),
        "busier_share_ratio": statistics.median(
            max(round_.processor_s) / sum(round_.processor_s) for round_ in together
        ),
        "peak_growth_half_bytes": small_peak,
        "peak_growth_bytes": large_peak,
        "peak_growth_record_bytes": (large_peak - small_peak) / (large - small),
    }


class _Round:
    """One deep audit."""

    def __init__(self, wall_s: float, processor_s: list[float]) -> None:
        self.wall_s = wall_s
        self.processor_s = processor_s


def _peak_growth(loaded: LoadedPool) -> float:
    """What a fresh worker's peak memory grows by in a deep audit, bytes."""
    with _workers(loaded, 1) as (worker,):
        before = _peak(worker)
        _deep(loaded, (worker,))
        return _peak(worker) - before


def _deep(loaded: LoadedPool, workers: Sequence[subprocess.Popen[bytes]]) -> _Round:
    before = [_processor_s(worker) for worker in workers]
    started = time.perf_counter()
    ended = _audited(loaded, "deep")
    wall_s = time.perf_counter() - started
    assert ended.report is not None, ended
    assert not ended.report["findings"], ended.report["counts"]
    return _Round(wall_s, [_processor_s(worker) - was for worker, was in zip(workers, before, strict=True)])


def _audited(loaded: LoadedPool, level: str) -> Ended:
    run_id = secrets.token_hex(8)
    with ChangeSender(loaded.settings) as sender:
        given = {"level": level, "run_id": run_id}
        sender.call(wire.QUEUE_AUDIT, "tasks.audit.check_all_trades", [], kwargs=given)
    return _end_of(loaded.pool, run_id)


def _end_of(pool: TradePool, run_id: str) -> Ended:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        found = pool.get_audit_progress(run_id)
        if isinstance(found, Ended):
            return found
        time.sleep(_POLL_S)
    raise TimeoutError(f"no report within {_TIMEOUT_S:.0f} s")


@contextmanager
def _workers(loaded: LoadedPool, count: int) -> Iterator[tuple[subprocess.Popen[bytes], ...]]:
    """Worker processes as the fleet starts them, that have done an audit of the digest level."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-Q", wire.QUEUE_AUDIT]
    with ExitStack() as started:
        workers = []
        for number in range(count):
            options = ["-n", f"audit-{number}@%h", "-P", "threads", "-c", "1", "--loglevel", "ERROR"]
            worker = subprocess.Popen([*command, *options], env=environment(loaded.settings))
            started.callback(worker.wait)
            started.callback(worker.send_signal, signal.SIGTERM)
            workers.append(worker)
        for _ in range(4 * count):
            _audited(loaded, "digest")
        yield tuple(workers)


def _peak(worker: subprocess.Popen[bytes]) -> float:
    """The most memory that the process had so far, bytes."""
    match = _PEAK.search(Path(f"/proc/{worker.pid}/status").read_text())
    assert match is not None
    return float(match[1]) * 1024


def _processor_s(worker: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


if __name__ == "__main__":
    run(measure)
