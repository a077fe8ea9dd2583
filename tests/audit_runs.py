"""Audits of a large pool at every level while everything goes on in it: none of them may find anything.

    python -m tests.audit_runs --runs 50          (make audits RUNS=50)

A pool is filled with trades of every kind. Then bots add trades, fill and close them and move tokens without
a pause, while run after run audits it; in each the pool's snapshot is written, old trades are added and
archived, prices are set, the book is marked and compared. Some runs share a pool: filling it takes longer
than an audit. The pool and its bots are a process of their own, as an audit worker is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.archived_trades import closed_trade
from tests.saying import say
from tests.varied_trades import trade_on, varied_trades
from tradepool import Settings, TradePool
from tradepool.audit.report import Finding
from tradepool.audit.rules.registry import Level
from tradepool.batching import batched

__all__ = ["TRADES", "Run", "clean_runs"]

TRADES = 100_000
POOL_RUNS = 10
"""Runs that share a pool."""
SHARDS = 8
WRITERS = 3
_USER_TRADES = 50
_PAGE = 2_000
_OLD_TRADES = 4
_WAIT_S = 600.0
_PRICES = {"BTC/USDT": "101", "ETH/USDT": "99", "SOL/USDT": "100"}


class Run(NamedTuple):
    """One audit at each level."""

    records: int
    """That the deep audit read."""
    seconds: float
    findings: tuple[Finding, ...]
    """Without notices; the varied trades report results of their own."""
    undecided: tuple[str, ...]


def clean_runs(folder: Path, *, trades: int, runs: int, seed: int = 0) -> Iterator[Run]:
    """Run after run on a new pool of that many trades under `folder`, while bots go on.

    Raises: RuntimeError when a bot, or whoever keeps the pool meanwhile, failed.
    """
    with _pool_at_work(folder, trades, seed) as (pipe, settings), TradePool.connect(settings) as pool:
        for number in range(runs):
            pipe.send(number)
            run = _audited(pool, _users(trades), random.Random(f"{seed}/{number}"))
            _heard(pipe)
            yield run


def _audited(pool: TradePool, users: int, draw: random.Random) -> Run:
    started = time.monotonic()
    reports = [pool.check_all_trades(level=level) for level in Level]
    reports.append(pool.check_trades(f"user {draw.randrange(users)}", deep=False))
    return Run(
        reports[2].checked["records"],
        time.monotonic() - started,
        tuple(finding for report in reports if not report.ok for finding in report.findings),
        tuple(text for report in reports for text in report.undecided),
    )


def _keep(pool: TradePool, number: int) -> None:
    """What beat would have done meanwhile."""
    for old in range(_OLD_TRADES):
        closed_trade(pool, f"old {old}", days_ago=20 + number, trade_id=f"old-{number}-{old}")
    pool.archive_closed_trades()
    pool.set_prices(_PRICES)
    pool.mark_to_market()
    pool._services.marking.check_book()
    pool.write_snapshot()


@contextmanager
def _pool_at_work(folder: Path, trades: int, seed: int) -> Iterator[tuple[Any, Settings]]:
    """A filled pool with its bots, in a process that keeps it once for each number that it is sent."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, folder, trades, seed), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, _heard(ours)
    finally:
        ours.close()
        process.join()


def _heard(pipe: Any) -> Any:
    if not pipe.poll(_WAIT_S):
        raise TimeoutError("the pool's process does not answer")
    told, problem = pipe.recv()
    if problem:
        raise RuntimeError(problem)
    return told


def _work(pipe: Any, folder: Path, trades: int, seed: int) -> None:
    with TradePool.embedded(folder, shard_count=SHARDS) as pool:
        for page in batched(varied_trades(trades, _users(trades), seed), _PAGE):
            pool.add_trades(page)
        with _bots(pool) as problems, suppress(EOFError):
            pipe.send((pool.settings, ""))
            while True:
                number = pipe.recv()
                try:
                    _keep(pool, number)
                except Exception as problem:  # noqa: BLE001 - told to whoever audits
                    problems.append(f"the keeper: {problem!r}")
                pipe.send((None, problems[0] if problems else ""))


@contextmanager
def _bots(pool: TradePool) -> Iterator[list[str]]:
    """Bots that trade until the block ends; what went wrong with them so far."""
    stop = threading.Event()
    problems: list[str] = []

    def work(bot: int) -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                trade_on(pool, f"user {bot * 7 + number % 5}", number)
        except Exception as problem:  # noqa: BLE001 - told to whoever audits
            problems.append(f"bot {bot}: {problem!r}")

    threads = [threading.Thread(target=work, args=(bot,)) for bot in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield problems
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _users(trades: int) -> int:
    return max(trades // _USER_TRADES, 1)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.audit_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--trades", type=int, default=TRADES)
    given = parser.parse_args()
    started, done, bad = time.monotonic(), 0, 0
    while done < given.runs:
        with tempfile.TemporaryDirectory(prefix="audits-") as folder:
            runs = min(POOL_RUNS, given.runs - done)
            for run in clean_runs(Path(folder) / "pool", trades=given.trades, runs=runs, seed=done):
                done += 1
                bad += bool(run.findings)
                say(f"run {done}: {run.records:,} records, {run.seconds:.1f} s, {_told(run)}")
    say(f"{done} runs, {bad} with findings, {time.monotonic() - started:.0f} s")
    return int(bad > 0)


def _told(run: Run) -> str:
    found = f"{len(run.findings)} findings {list(run.findings[:3])}" if run.findings else "0 findings"
    return f"{found}, {len(run.undecided)} undecided {list(run.undecided[:3])}"


if __name__ == "__main__":
    sys.exit(_main())
