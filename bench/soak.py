"""Whether the processes of a fleet for 64 threads keep their memory under load: size, budget, slope.

    python bench/soak.py [--seconds 600] [--threads 64] [--rate 300] [--leak trades-1]

A server, `tradepool up` with TRADEPOOL_CPU_THREADS=64, and a bot that hands in `rate` commands a second: each
trade is added, filled and closed, so that what is open stays the same. Every second the unique set size (USS:
what would be freed if the process ended) of each program is read. The first third is warm-up. The rest is cut
into twelve parts; a line through their medians gives the slope, and from how they scatter about it follow its
bounds at 95 %. A program leaks when even the lower bound is above SLOPE_MAX_KIB_PER_MIN, and so is what it
usually grows from one part to the next: a first task is a step, a leak goes on. Exits with 1 when one
leaks, is above its budget or was started again.

What fills up once and no further would look like a leak in ten minutes. So every process collects its garbage
and gives free memory back every few seconds (GIVING_BACK): by itself Python makes a full collection once an
hour or so, and keeps up to 2,000 used tuples of each length, 4 MiB in all, until then. And Flower, which
remembers 10,000 messages, is told to remember FLOWER_TASKS_MAX: it forgets some before the warm-up is over.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil  # type: ignore[import-untyped]  # it ships no types

from tradepool import Settings
from tradepool.client import PoolClient
from tradepool.fleet.programs import environment, generated_login
from tradepool.server.embedded import EmbeddedServer, free_port

__all__ = ["BUDGET_MIB", "Slope", "measure", "slope_of"]

BUDGET_MIB = 256.0
"""Of each program; its threads share what they import, which is most of it."""
BUDGETS_MIB = {"gpu": 384.0}
"""Of those that need more: compiling the kernels loads the compiler, and the book holds every open trade."""
SLOPE_MAX_KIB_PER_MIN = 64.0
"""Above this for certain is a leak: 90 MiB a day."""
PARTS = 12
FLOWER_TASKS_MAX = 100
GIVING_BACK = """
import ctypes, gc, threading, time

def give_back():
    release = ctypes.CDLL(None).malloc_trim
    while True:
        time.sleep(5)
        gc.collect()
        release(0)

threading.Thread(target=give_back, daemon=True).start()
"""
"""Run by Python in each process of the fleet as it starts; the fleet itself has no such switch."""
LEAK_KIB_PER_S = 64
LEAKING = """
def leak(kept):
    while True:
        time.sleep(1)
        kept.append(bytes({size}))

import sys
if "{name}@%h" in sys.orig_argv:
    threading.Thread(target=leak, args=[[]], daemon=True).start()
"""
"""Run after that one where a leak is planted in the worker of that name."""
_T_95 = 2.228
"""Student's t for 95 %, two-sided, with PARTS − 2 degrees of freedom."""
_WARM_UP_SHARE = 1 / 3
_MIB = 1 << 20
_USERS = 50
_CHUNK_TRADES = 20
_COMMANDS_EACH = 3
_CONFIRM_S = 120.0
_STOP_S = 120.0

Samples = dict[str, list[tuple[float, float]]]
"""By program: when, in seconds, and how many bytes."""


class Slope(NamedTuple):
    """Growth in KiB a minute, between which bounds it is at 95 %, and the median from part to part."""

    middle: float
    low: float
    high: float
    usual: float

    @property
    def is_leak(self) -> bool:
        """Whether memory grows for certain, and not in a few steps."""
        return min(self.low, self.usual) > SLOPE_MAX_KIB_PER_MIN


def slope_of(samples: Sequence[tuple[float, float]]) -> Slope:
    """The slope of `samples` (seconds, bytes), which must be 3 × PARTS at least.

    Medians of parts, because what one sample has above the line the next one mostly has as well.
    """
    size = len(samples) // PARTS
    parts = [samples[number * size : (number + 1) * size] for number in range(PARTS)]
    times = [statistics.median(at for at, _ in part) / 60 for part in parts]
    sizes = [statistics.median(taken for _, taken in part) / 1024 for part in parts]
    line = statistics.linear_regression(times, sizes)
    left = [taken - line.slope * at - line.intercept for at, taken in zip(times, sizes, strict=True)]
    spread = sum((at - statistics.fmean(times)) ** 2 for at in times)
    error = (sum(rest**2 for rest in left) / (PARTS - 2) / spread) ** 0.5
    grown = [after - before for before, after in pairwise(sizes)]
    usual = statistics.median(grown) * (PARTS - 1) / (times[-1] - times[0])
    return Slope(line.slope, line.slope - _T_95 * error, line.slope + _T_95 * error, usual)


def measure(*, seconds: float, threads: int, rate: float, leaky: str = "") -> tuple[Samples, int]:
    """The samples after the warm-up, and how many commands were journaled meanwhile.

    The worker `leaky` is given a leak of LEAK_KIB_PER_S: whoever finds none there would find none at all.
    """
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        server = resources.enter_context(EmbeddedServer(folder, port=0))
        settings = server.settings(
            data_dir=folder,
            cpu_threads=threads,
            flower_port=free_port(),
        )
        up = resources.enter_context(_fleet(settings, leaky))
        client = resources.enter_context(PoolClient.connect(settings, spool=folder / "bot.db"))
        first = client.add_trade(_trade(0))
        if not all(client.confirm([first], _CONFIRM_S).values()):
            raise SystemExit("the fleet does not come up")
        handed, samples = _load(client, up, seconds, rate)
        if not client.flush(_CONFIRM_S) or client.rejections:
            raise SystemExit(f"commands are missing: {client.pending()} under way, {client.rejections[:1]}")
    return samples, handed


@contextmanager
def _fleet(settings: Settings, leaky: str) -> Iterator[subprocess.Popen[bytes]]:
    login = {"TRADEPOOL_FLOWER_BASIC_AUTH": generated_login().get_secret_value()}
    ports = {"TRADEPOOL_METRICS_PORT": str(free_port())}
    own = environment(settings) | {"FLOWER_MAX_TASKS": str(FLOWER_TASKS_MAX)}
    leak = LEAKING.format(name=leaky, size=LEAK_KIB_PER_S << 10) if leaky else ""
    (settings.data_dir / "sitecustomize.py").write_text(GIVING_BACK + leak)
    own["PYTHONPATH"] = os.pathsep.join((str(settings.data_dir), own["PYTHONPATH"]))
    command = [sys.executable, "-m", "tradepool.cli", "up"]
    with (settings.data_dir / "up.log").open("wb") as out:
        up = subprocess.Popen(command, stdout=out, stderr=out, env=own | login | ports)
    try:
        yield up
    finally:
        up.terminate()
        up.wait(_STOP_S)


def _load(
    client: PoolClient, up: subprocess.Popen[bytes], seconds: float, rate: float
) -> tuple[int, Samples]:
    """Hand in `rate` commands a second and look at the processes once a second."""
    samples: Samples = defaultdict(list)
    started = looked = time.monotonic()
    handed = 0
    while (elapsed_s := time.monotonic() - started) < seconds:
        if handed < rate * elapsed_s:
            handed += _hand_in(client, handed)
        elif time.monotonic() - looked < 1:
            time.sleep(0.01)
        if time.monotonic() - looked >= 1:
            looked = time.monotonic()
            if elapsed_s >= seconds * _WARM_UP_SHARE:
                for name, size in _sizes(up.pid):
                    samples[name].append((elapsed_s, size))
    return handed, samples


def _hand_in(client: PoolClient, number: int) -> int:
    """A few trades from add to close; how many commands those were."""
    trade_ids = client.add_trades([_trade(number + place) for place in range(_CHUNK_TRADES)])
    for trade_id in trade_ids:
        client.add_fill(
            trade_id, {"fill_id": f"{trade_id}/0", "role": "entry", "amount": "2", "price": "100"}
        )
    for trade_id in trade_ids:
        client.close_trade(trade_id, "101")
    return _CHUNK_TRADES * _COMMANDS_EACH


def _trade(number: int) -> dict[str, object]:
    return {
        "trade_id": f"soak-{uuid4()}",
        "user_id": f"user-{number % _USERS}",
        "symbol": "BTC/USDT",
        "side": "buy",
        "amount": "2",
        "price": "100",
    }


def _sizes(up_pid: int) -> Iterator[tuple[str, float]]:
    for process in psutil.Process(up_pid).children():
        try:
            words = process.cmdline()
            size = float(process.memory_full_info().uss)
        except psutil.NoSuchProcess:
            continue
        if "-n" in words:
            name = words[words.index("-n") + 1].partition("@")[0]
        else:
            name = next((word for word in ("beat", "flower", "metrics") if word in words), "?")
        # One that is started again begins anew, and is told from the one before.
        yield f"{name} {process.pid}", size


def main() -> int:
    """Measure and print; 0 when nothing leaks and all stay within their budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rate", type=float, default=300.0, help="commands a second")
    parser.add_argument("--leak", default="", help=f"plant {LEAK_KIB_PER_S} KiB a second in this worker")
    given = parser.parse_args()
    samples, handed = measure(seconds=given.seconds, threads=given.threads, rate=given.rate, leaky=given.leak)
    budgets = f"{BUDGET_MIB:g} MiB each, gpu {BUDGETS_MIB['gpu']:g}"
    print(f"{handed:,} commands in {given.seconds:g} s, budget {budgets}")
    print("| program | USS at the end | slope, KiB a minute (95 %) | usually | |")
    print("|---|---:|---:|---:|---|")
    failed = 0
    for name, taken in sorted(samples.items()):
        budget_mib = BUDGETS_MIB.get(name.partition(" ")[0], BUDGET_MIB)
        verdict = _verdict(taken, budget_mib, max(len(other) for other in samples.values()))
        failed += verdict != "ok"
        slope = slope_of(taken) if len(taken) >= 3 * PARTS else Slope(0, 0, 0, 0)
        bounds = f"{slope.middle:+.0f} ({slope.low:+.0f} to {slope.high:+.0f}) | {slope.usual:+.0f}"
        print(f"| {name} | {taken[-1][1] / _MIB:.1f} MiB | {bounds} | {verdict} |")
    return min(failed, 1)


def _verdict(taken: Sequence[tuple[float, float]], budget_mib: float, samples_max: int) -> str:
    if len(taken) < max(0.9 * samples_max, 3 * PARTS):
        return "was not there all the time"
    if max(size for _, size in taken) > budget_mib * _MIB:
        return "above its budget"
    return "leaks" if slope_of(taken).is_leak else "ok"


if __name__ == "__main__":
    sys.exit(main())
