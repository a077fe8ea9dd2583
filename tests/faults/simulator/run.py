"""One run of one seed: everything started, struck, healed, caught up, closed and checked."""

from __future__ import annotations

import heapq
import select
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec

from tests.faults.simulator.breaks import break_build
from tests.faults.simulator.checks import check_everything
from tests.faults.simulator.faults import heal, strike
from tests.faults.simulator.plan import RUN_MS, WRITERS, Plan
from tests.faults.simulator.stage import JOURNAL, Stage, writer_name
from tests.faults.simulator.writers import read_notes

__all__ = ["Outcome", "run_plan"]

CATCH_UP_S = 30.0
"""How long everything may take to be answered and journaled once nothing strikes any more."""

_TICK_S = 0.05
_RESTART_S = 0.03


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seed: int
    violations: list[str]
    faults: dict[str, int]
    """How often each kind struck."""
    answers: dict[str, int]
    """Acknowledged commands by outcome (`applied`, `duplicate`, `stale`, `rejected`)."""
    lines: dict[str, int]
    """In the journal, by kind of record."""
    restarts: int
    """Processes that died and were started again."""
    disk_errors: int
    seconds: float
    folder: str = ""
    """Where everything is kept after a failure."""


def run_plan(plan: Plan, folder: Path, *, broken: str = "") -> Outcome:
    """Run `plan` once in `folder`, which stays if anything is violated.

    Forks and patches: call it in a process with one thread that does nothing else afterwards.
    """
    started_s = time.monotonic()
    break_build(broken)
    stage = Stage(plan, folder, broken=broken)
    run = _Run(stage)
    try:
        stage.begin()
        run.play()
        run.catch_up()
        violations: list[str] = run.violations
        lines: dict[str, int] = {}
        if not violations:
            violations, lines = check_everything(stage)
    finally:
        stage.close()
    if not violations:
        shutil.rmtree(folder)
    return Outcome(
        seed=plan.seed,
        violations=violations,
        faults=dict(Counter(fault.kind.value for fault in plan.faults)),
        answers=_answers(stage) if violations else run.answers,
        lines=lines,
        restarts=run.restarts,
        disk_errors=stage.disk.errors,
        seconds=time.monotonic() - started_s,
        folder=str(folder) if violations else "",
    )


class _Run:
    """The timeline of one run: faults as planned, their ends, and restarts of what died."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._numbers = count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._restarting: set[str] = set()
        self._restart_after_s: dict[str, float] = {}
        self.violations: list[str] = []
        self.restarts = 0
        self.answers: dict[str, int] = {}

    def play(self) -> None:
        """Let every fault strike at its time; returns when the last one has ended."""
        for fault in self._stage.plan.faults:
            self._at(fault.at_ms / 1000, lambda fault=fault: self._strike(fault))
        end_s = self._stage.started_s + RUN_MS / 1000
        while not self.violations and (self._waiting or time.monotonic() < end_s):
            self._tick()

    def catch_up(self) -> None:
        """Heal; wait until every writer has all its answers, then close the journal in order."""
        if self.violations:
            return
        heal(self._stage)
        deadline = time.monotonic() + CATCH_UP_S
        writers = [writer_name(number) for number in range(WRITERS)]
        while not self.violations and not all(self._is_done(name) for name in writers):
            self._tick()
            if time.monotonic() > deadline:
                self.violations.append(f"not caught up within {CATCH_UP_S:g} s after the last fault")
        self.answers = _answers(self._stage)
        self._close_journal(deadline)

    def _close_journal(self, deadline: float) -> None:
        if self.violations:
            return
        self._stage.order("close")
        journal = self._stage.children[JOURNAL]
        while not self.violations and journal.poll() is None:
            self._pause()
            if time.monotonic() > deadline:
                self.violations.append("the journal did not close")
        if journal.exit_code not in (0, None):
            self.violations.append(f"the journal ended with {journal.exit_code} when it was closed")

    def _strike(self, fault) -> None:
        self._restart_after_s[fault.target or JOURNAL] = fault.for_ms / 1000
        undo = strike(self._stage, fault)
        if undo is not None:
            self._at((fault.at_ms + fault.for_ms) / 1000, undo)

    def _at(self, after_s: float, call: Callable[[], object]) -> None:
        """Have `call` made that long after the beginning."""
        heapq.heappush(self._waiting, (self._stage.started_s + after_s, next(self._numbers), call))

    def _tick(self) -> None:
        """Do what is due, look after the processes, and wait for the next of either."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            heapq.heappop(self._waiting)[2]()
        for name, child in list(self._stage.children.items()):
            if child.poll() is not None and name not in self._restarting:
                self._look_after(name, child.exit_code)
        self._pause()

    def _look_after(self, name: str, code: int | None) -> None:
        """Start a killed process again; anything else that ends is an answer, or a violation."""
        if code == -signal.SIGKILL:
            self._restarting.add(name)
            after_s = time.monotonic() - self._stage.started_s + self._restart_after_s.get(name, _RESTART_S)
            self._at(after_s, lambda: self._restart(name))
        elif code != 0 or name == JOURNAL:
            log = (self._stage.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            last = "\n".join(log.splitlines()[-12:])
            self.violations.append(f"{name} ended with {code}:\n{last}")

    def _restart(self, name: str) -> None:
        self._restarting.discard(name)
        self.restarts += 1
        self._stage.start(name)

    def _is_done(self, name: str) -> bool:
        return self._stage.children[name].poll() == 0

    def _pause(self) -> None:
        """Until the next event, or until a process ends."""
        until_s = self._waiting[0][0] - time.monotonic() if self._waiting else _TICK_S
        alive = [child for child in self._stage.children.values() if child.exit_code is None]
        select.select(alive, [], [], max(0.0, min(until_s, _TICK_S)))


def _answers(stage: Stage) -> dict[str, int]:
    """How many commands were answered, by outcome."""
    counts: Counter[str] = Counter()
    for number in range(WRITERS):
        for answers in read_notes(stage.notes(number))[1].values():
            counts.update(a.receipt.outcome if a.receipt is not None else "rejected" for a in answers)
    return dict(counts)
