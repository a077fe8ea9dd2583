"""Many seeds, a few at a time, each in a process forked from this warmed one."""

from __future__ import annotations

import select
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import msgspec

from tests.faults.simulator.children import Child
from tests.faults.simulator.plan import make_plan
from tests.faults.simulator.run import Outcome, run_plan

__all__ = ["replay_command", "run_seeds", "summary"]

RUN_TIMEOUT_S = 90.0
"""After that a run counts as hung; whatever it started dies with it."""

_LOOK_S = 0.5


class _Job:
    """One run in a process of its own."""

    def __init__(self, seed: int, results: Path, broken: str) -> None:
        self.seed = seed
        self._folder = Path(tempfile.mkdtemp(prefix=f"simulator-{seed}-"))
        self._result = results / f"{self._folder.name}.json"
        self._log = self._result.with_suffix(".log")
        self._deadline = time.monotonic() + RUN_TIMEOUT_S

        def run() -> int:
            outcome = run_plan(make_plan(seed), self._folder, broken=broken)
            self._result.write_bytes(msgspec.json.encode(outcome))
            return 0

        self.child = Child(f"seed {seed}", run, self._log)

    def fileno(self) -> int:
        return self.child.fileno()

    def give_up(self) -> None:
        """End it, and leave nothing of it."""
        self.child.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def outcome(self) -> Outcome | None:
        """What came out; None while it runs."""
        if self.child.poll() is None:
            if time.monotonic() < self._deadline:
                return None
            self.child.kill()
        if self.child.exit_code == 0:
            return msgspec.json.decode(self._result.read_bytes(), type=Outcome)
        ended = "hung" if self.child.exit_code == -signal.SIGKILL else f"ended with {self.child.exit_code}"
        words = self._log.read_text(encoding="utf-8", errors="replace")[-4000:]
        violation = f"the simulator itself {ended}: {words}"
        return Outcome(
            seed=self.seed,
            folder=str(self._folder),
            violations=[violation],
            faults={},
            answers={},
            lines={},
            restarts=0,
            disk_errors=0,
            seconds=0,
        )


def run_seeds(
    seeds: Iterable[int], results: Path, *, jobs: int = 1, broken: str = ""
) -> Generator[Outcome, None, None]:
    """Run the plan of each seed, `jobs` at a time; outcomes as they come. `results` is a folder for them."""
    waiting: Iterator[int] = iter(seeds)
    running: list[_Job] = []
    try:
        while True:
            while len(running) < jobs and (seed := next(waiting, None)) is not None:
                running.append(_Job(seed, results, broken))
            if not running:
                return
            select.select(running, [], [], _LOOK_S)
            for job in list(running):
                outcome = job.outcome()
                if outcome is not None:
                    running.remove(job)
                    yield outcome
    finally:
        for job in running:
            job.give_up()


def replay_command(seed: int, broken: str = "") -> str:
    """What runs the plan of `seed` again, five times: the kernel's schedule is not the seed's."""
    return f"python -m tests.faults.simulator --seed {seed} --runs 5" + (
        f" --break {broken}" if broken else ""
    )


def summary(outcomes: Iterable[Outcome]) -> str:
    """The counts over all runs, a line for each kind."""
    done = list(outcomes)
    totals: dict[str, Counter[str]] = {name: Counter() for name in ("answers", "lines", "faults")}
    for outcome in done:
        totals["answers"].update(outcome.answers)
        totals["lines"].update(outcome.lines)
        totals["faults"].update(outcome.faults)
    failed = [outcome.seed for outcome in done if outcome.violations]
    lines = [f"{len(done)} runs, {len(failed)} with violations{f': {failed}' if failed else ''}"]
    for name, counts in totals.items():
        each = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        lines.append(f"{name}: {counts.total()} ({each})")
    lines.append(
        f"processes restarted: {sum(o.restarts for o in done)}; "
        f"disk errors: {sum(o.disk_errors for o in done)}"
    )
    return "\n".join(lines)
