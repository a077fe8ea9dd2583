"""`python -m tests.faults.simulator --seed 17`: what README.md beside this file describes."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from tests.faults.simulator.breaks import BREAKS
from tests.faults.simulator.campaign import replay_command, run_seeds, summary
from tests.faults.simulator.plan import make_plan
from tests.faults.simulator.run import Outcome
from tests.saying import say

_JOBS = 2 * (os.cpu_count() or 1)
"""A run waits for most of its time."""


def main() -> int:
    """Run what the arguments name; 0 when nothing was violated."""
    arguments = _parser().parse_args()
    seeds = [arguments.seed] if arguments.seed is not None else list(arguments.seeds)
    if arguments.show:
        say("\n".join(make_plan(seed).show() for seed in seeds))
        return 0
    gc.freeze()
    started_s = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="simulator-results-") as folder:
        runs = [seed for seed in seeds for _ in range(arguments.runs)]
        results = run_seeds(runs, Path(folder), jobs=arguments.jobs, broken=arguments.broken)
        with contextlib.closing(results):
            for outcome in results:
                outcomes.append(outcome)
                _report(outcome, arguments.broken)
                if arguments.first and outcome.violations:
                    break
    say(f"{summary(outcomes)}\n{time.monotonic() - started_s:.0f} s with {arguments.jobs} at a time")
    return int(any(outcome.violations for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m tests.faults.simulator", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="one seed")
    which.add_argument("--seeds", type=_span, help="from-to, both included")
    parser.add_argument("--runs", type=_count, default=1, help="how often the plan of each seed is run")
    parser.add_argument("--jobs", type=_count, default=_JOBS, help="runs at a time")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--show", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--break", dest="broken", choices=BREAKS, default="", help="run a broken build")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(2, f"{self.prog}: {message}\n")


def _span(text: str) -> range:
    first, _, last = text.partition("-")
    numbers = (first, last or first)
    if not all(number.isdecimal() for number in numbers) or int(numbers[0]) > int(numbers[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no span of seeds; write from-to, like 0-199, or one")
    return range(int(numbers[0]), int(numbers[1]) + 1)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _report(outcome: Outcome, broken: str) -> None:
    if outcome.violations:
        say(f"seed {outcome.seed}: VIOLATED")
        say("\n".join(f"  {violation}" for violation in outcome.violations))
        say(f"  kept: {outcome.folder}\n  again: {replay_command(outcome.seed, broken)}")
    else:
        lines, faults = sum(outcome.lines.values()), sum(outcome.faults.values())
        answers = sum(outcome.answers.values())
        say(
            f"seed {outcome.seed}: {answers} answers, {lines} lines, {faults} faults, {outcome.seconds:.1f} s"
        )


if __name__ == "__main__":
    sys.exit(main())
