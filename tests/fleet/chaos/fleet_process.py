"""The fleet of a chaos run: `tradepool up` with a prefork pool, two beats, and nobody who only looks on."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

from tradepool.fleet.programs import Program, fleet_programs, generated_login
from tradepool.fleet.supervisor import Supervisor
from tradepool.settings import Settings, load_settings

__all__ = ["PREFORK", "chaos_programs", "main"]

PREFORK = "trades-2"
"""The worker whose tasks run in children."""
_CHILDREN = "2"
_LEFT_OUT = ("flower", "metrics")
"""They only look on."""
_OBSERVED = "tests.fleet.chaos.observed"


def chaos_programs(settings: Settings) -> list[Program]:
    """What runs, as `tradepool up` has it, with these differences."""
    login = settings.model_copy(update={"flower_basic_auth": generated_login()})
    programs = [_observed(program) for program in fleet_programs(login) if program.name not in _LEFT_OUT]
    (beat,) = (program for program in programs if program.name == "beat")
    return [*map(_with_children, programs), replace(beat, name="beat-2")]


def _observed(program: Program) -> Program:
    return replace(program, arguments=tuple(_OBSERVED if a == "tasks" else a for a in program.arguments))


def _with_children(program: Program) -> Program:
    if program.name != PREFORK:
        return program
    place = program.arguments.index("-P")
    pool = ("-P", "prefork", "-c", _CHILDREN)
    return replace(program, arguments=program.arguments[:place] + pool + program.arguments[place + 4 :])


def main() -> None:
    """Run it until SIGTERM."""
    settings = load_settings()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with Supervisor(settings, chaos_programs(settings)):
        stopping.wait()


if __name__ == "__main__":
    main()
