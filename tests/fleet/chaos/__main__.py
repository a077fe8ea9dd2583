"""`python -m tests.fleet.chaos --seed 1 --trades 100000 --faults all`: what docs/reliability.md describes."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.fleet.chaos.breaks import BREAKS, VARIABLE
from tests.fleet.chaos.outcome import table
from tests.fleet.chaos.plan import FULL_TRADES, FaultKind, make_plan, wanted_counts
from tests.fleet.chaos.run import run_chaos
from tests.saying import say

_EACH = "each"
_ALONE_MIN = 3
"""So often a fault strikes at least when it strikes alone."""


def main() -> int:
    """Run what the arguments name; 0 when nothing was violated."""
    arguments = _parser().parse_args()
    if arguments.broken:
        os.environ[VARIABLE] = arguments.broken
    if arguments.transport:
        os.environ["TRADEPOOL_BROKER_TRANSPORT"] = arguments.transport
    failed = [faults for faults in _runs(arguments) if not _run(faults, arguments)]
    if failed:
        say(f"VIOLATED with faults: {', '.join(failed)}")
    return 1 if failed else 0


def _runs(arguments: argparse.Namespace) -> list[str]:
    """The faults of each run."""
    if arguments.faults != _EACH:
        return [arguments.faults]
    return [
        f"{kind}:{max(_ALONE_MIN, times)}" for kind, times in wanted_counts("all", arguments.trades).items()
    ]


def _run(faults: str, arguments: argparse.Namespace) -> bool:
    counts = wanted_counts(faults, arguments.trades)
    if arguments.show:
        say("\n".join(map(str, make_plan(arguments.seed, counts))))
        return True
    say(f"faults: {faults}")
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{arguments.seed}-"))
    outcome = run_chaos(arguments.seed, arguments.trades, counts, folder)
    say(table(outcome) + "\n")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.encode(outcome))
    if not outcome.violations:
        shutil.rmtree(folder)
        return True
    say("\n".join(f"  {violation}" for violation in outcome.violations))
    again = f"--seed {arguments.seed} --trades {arguments.trades} --faults {faults}"
    again += f" --break {arguments.broken}" if arguments.broken else ""
    again += f" --transport {arguments.transport}" if arguments.transport else ""
    say(f"  kept: {folder}\n  again: python -m tests.fleet.chaos {again}")
    return False


def _trades(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} trades are nothing to test with; give 1 or more")
    return number


def _faults(text: str) -> str:
    if text != _EACH:
        try:
            wanted_counts(text, FULL_TRADES)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}; there are {', '.join(FaultKind)}") from error
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the plan and the commands follow from it")
    parser.add_argument(
        "--trades", type=_trades, default=FULL_TRADES, help="handed in by four clients together"
    )
    parser.add_argument(
        "--faults",
        type=_faults,
        default="all",
        help=f"'all' at once, '{_EACH}' alone, or some of {', '.join(FaultKind)}; worker:5 for five of them",
    )
    parser.add_argument(
        "--transport", choices=("celery", "atomic"), default="", help="TRADEPOOL_BROKER_TRANSPORT of the run"
    )
    parser.add_argument("--break", dest="broken", choices=BREAKS, default="", help="run a broken build")
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    parser.add_argument("--show", action="store_true", help="print the plan and run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
