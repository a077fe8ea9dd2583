"""One run of a plan: the load, the faults when they come due, and what came of it."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from tests.fleet.chaos.breaks import acknowledges_early
from tests.fleet.chaos.checks import check_records
from tests.fleet.chaos.fleet_checks import check_fleet, wait_ready
from tests.fleet.chaos.notes import client_notes, read_notes, worker_notes
from tests.fleet.chaos.outcome import Outcome, Struck, resends_in, self_ended, windows_seen
from tests.fleet.chaos.plan import Fault, FaultKind, make_plan
from tests.fleet.chaos.stage import CLIENTS, Stage
from tests.fleet.chaos.strikes import NobodyThereError, strike
from tests.fleet.chaos.workload import WINDOW_TRADES, client_trades

__all__ = ["run_chaos"]

_TICK_S = 0.05
_AGAIN_S = 0.5
"""When to try again to strike somebody who was not there."""
_STALLED_S = 120.0
"""Without any window confirmed for so long, the run has failed: everything here heals in far less."""
_BROKEN_STALLED_S = 20.0
"""A build that is broken on purpose need not be given so long."""


def run_chaos(seed: int, trades: int, counts: Mapping[FaultKind, int], folder: Path) -> Outcome:
    """Run the plan of `seed` once, with `trades` trades and as many faults of each kind as `counts` says."""
    with Stage(seed, trades, folder) as stage:
        run = _Run(stage, make_plan(seed, counts))
        started_s = time.monotonic()
        run.play()
        load_s = time.monotonic() - started_s
        violations = run.violations
        if not violations:
            violations = check_fleet(stage)
        stop_code = stage.stop_fleet() if stage.up_pid is not None else None
        if stop_code != 0:
            violations.append(f"the supervisor ended with {stop_code} when it was asked to end")
        violations += [f"left behind: {process}" for process in stage.left_behind()]
        violations += check_records(stage)
        violations += [f"ended by itself: {line}" for line in self_ended(stage)]
        return _outcome(stage, run, violations, load_s)


class _Run:
    """The timeline: strikes, their ends, clients that come back, until all of them are done."""

    def __init__(self, stage: Stage, plan: tuple[Fault, ...]) -> None:
        self.violations: list[str] = []
        self.struck: list[Struck] = []
        self._stage = stage
        self._coming = list(plan)
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._killed: set[int] = set()
        self._seen = (0, time.monotonic())

    def play(self) -> None:
        """Start the fleet, then the clients; returns when those have ended and every fault is over."""
        self._stage.start_fleet()
        wait_ready(self._stage)
        self._seen = (0, time.monotonic())
        for number in range(CLIENTS):
            self._stage.start_client(number)
        pause = threading.Event()
        while not self.violations and (self._due or self._coming or not self._are_done()):
            self._tick()
            pause.wait(_TICK_S)

    def _tick(self) -> None:
        share = self._progress()
        while self._coming and (self._coming[0].at <= share or self._are_done()):
            fault = self._coming.pop(0)
            self._at(fault.after_s, lambda fault=fault: self._strike(fault))
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        self._look_after_clients()
        if self._stage.up_pid is None and not self._is_coming_back:
            self.violations.append(f"the supervisor has ended: {self._stage.log('fleet')[-2000:]}")

    @property
    def _is_coming_back(self) -> bool:
        return bool(self._due)

    def _strike(self, fault: Fault) -> None:
        try:
            undo = strike(self._stage, fault)
        except NobodyThereError:
            if self._are_done() and fault.kind is FaultKind.CLIENT:
                return
            self._at(_AGAIN_S, lambda: self._strike(fault))
            return
        self.struck.append(Struck(kind=fault.kind, at=time.time(), for_s=fault.for_s))
        if undo is not None:
            self._at(fault.for_s, undo)

    def _at(self, after_s: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._due, (time.monotonic() + after_s, next(self._numbers), call))

    def _progress(self) -> float:
        """The share of all windows that were handed in; notices when nothing moves any more."""
        handed = confirmed = 0
        for number in range(CLIENTS):
            text = _text(client_notes(self._stage.notes_dir, number))
            handed += text.count(b'"handed"')
            confirmed += text.count(b'"confirmed"') + text.count(b'"done"')
        if confirmed > self._seen[0]:
            self._seen = (confirmed, time.monotonic())
        limit_s = _BROKEN_STALLED_S if acknowledges_early() else _STALLED_S
        if time.monotonic() - self._seen[1] > limit_s:
            self.violations.append(f"nothing was confirmed for {limit_s:g} s")
        windows = sum(
            -(-client_trades(self._stage.trades, CLIENTS, n) // WINDOW_TRADES) for n in range(CLIENTS)
        )
        return handed / windows

    def _are_done(self) -> bool:
        return all(client.poll() == 0 for client in self._stage.clients.values())

    def _look_after_clients(self) -> None:
        """A client that was killed comes back when its fault is over; any other that fails is a violation."""
        for number, client in self._stage.clients.items():
            if client.poll() not in (None, 0, -9):
                last = self._stage.log(f"client-{number}")[-2000:]
                self.violations.append(f"client {number} ended with {client.poll()}: {last}")


def _text(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _outcome(stage: Stage, run: _Run, violations: list[str], load_s: float) -> Outcome:
    notes = {n: read_notes(client_notes(stage.notes_dir, n)) for n in range(CLIENTS)}
    windows = windows_seen(notes)
    calls = [note.call_s for one in notes.values() for note in one]
    return Outcome(
        seed=stage.seed,
        trades=stage.trades,
        commands=sum(window.commands for window in windows),
        violations=violations,
        struck=run.struck,
        seconds=load_s,
        outcomes=dict(worker_notes(stage.notes_dir)),
        resends=sum(resends_in(stage.log(f"client-{n}")) for n in range(CLIENTS)),
        longest_call_s=max(calls, default=0.0),
        windows=windows,
    )
