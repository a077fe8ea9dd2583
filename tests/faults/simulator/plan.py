"""What a seed decides: the writers' commands, and which fault strikes when."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

import msgspec

from tests.faults.simulator.workload import Batch, batches_of

__all__ = ["RUN_MS", "WIRE", "WRITERS", "Fault", "FaultKind", "Plan", "make_plan"]

RUN_MS = 1500
"""How long faults strike; what the writers have not sent by then follows at once."""
WRITERS = 4

_FIRST_MS = 80
_EPISODES = (5, 8)

Episode = Callable[[random.Random, int, list[str]], list["Fault"]]
"""Makes faults that belong together, from about that millisecond on; it is told the writers' names."""


class FaultKind(StrEnum):
    """Everything that may go wrong; `Fault` says what its fields mean for each."""

    KILL_WRITER = "kill_writer"
    KILL_JOURNAL = "kill_journal"
    DIE_IN_WRITE = "die_in_write"
    DIE_BEFORE_FSYNC = "die_before_fsync"
    DIE_AFTER_FSYNC = "die_after_fsync"
    KILL_SERVER = "kill_server"
    EMPTY_SERVER = "empty_server"
    POWER_CUT = "power_cut"
    STOP = "stop"
    DISK_FULL = "disk_full"
    WRITE_EIO = "write_eio"
    FSYNC_EIO = "fsync_eio"
    FILE_LIMIT = "file_limit"
    CUT = "cut"
    HALF_OPEN = "half_open"
    SWALLOW = "swallow_answers"
    DELAY = "delay"
    MEMORY_FULL = "memory_full"
    JOURNAL_CLOCK = "journal_clock"
    REWRITE_AOF = "rewrite_aof"
    SNAPSHOT = "snapshot"
    ARCHIVE = "archive"


WIRE = {FaultKind.CUT, FaultKind.HALF_OPEN, FaultKind.SWALLOW, FaultKind.DELAY}


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault: it begins at `at_ms` and is over (or what died comes back) `for_ms` later.

    `target` names a process where there is a choice. `amount` is: of a server kill or power cut, up to how
    many bytes the append-only file loses; of a death in a write, the percentage that was written; of a file
    limit, how many bytes still fit; of a delay, its milliseconds; of a clock, the seconds that it jumps.
    """

    at_ms: int
    kind: FaultKind
    target: str = ""
    for_ms: int = 0
    amount: int = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that follows from a seed. Which instruction a kill hits is the kernel's choice, not the seed's."""

    seed: int
    batches: tuple[tuple[Batch, ...], ...]
    """Each writer's, in order."""
    faults: tuple[Fault, ...]
    through_proxy: frozenset[str]
    """Processes whose connections go through the proxy."""

    def show(self) -> str:
        """The plan as text, one event a line."""
        lines = [f"seed {self.seed}; through the proxy: {', '.join(sorted(self.through_proxy)) or 'nobody'}"]
        lines += [f"  {msgspec.json.encode(fault).decode()}" for fault in self.faults]
        for number, batches in enumerate(self.batches):
            lines.append(f"writer-{number}")
            lines += [f"  {msgspec.json.encode(batch).decode()}" for batch in batches]
        return "\n".join(lines)


def make_plan(seed: int) -> Plan:
    """The plan of `seed`: the same one each time, on every machine."""
    choose = random.Random(seed)
    names = [f"writer-{number}" for number in range(WRITERS)]
    faults = _faults(choose, names)
    through_proxy: frozenset[str] = frozenset()
    if any(fault.kind in WIRE for fault in faults):
        through_proxy = frozenset(choose.sample([*names, "journal"], choose.randint(2, WRITERS + 1)))
    return Plan(
        seed=seed,
        batches=batches_of(choose, seed, writers=WRITERS, run_ms=RUN_MS),
        faults=faults,
        through_proxy=through_proxy,
    )


def _faults(choose: random.Random, writers: list[str]) -> tuple[Fault, ...]:
    episodes = [choose.choice(_CRASHES)]
    episodes += choose.choices(_EPISODE_KINDS, k=choose.randint(*_EPISODES) - 1)
    found: list[Fault] = []
    for episode in episodes:
        found += episode(choose, choose.randrange(_FIRST_MS, RUN_MS - 250), writers)
    return tuple(sorted(found, key=lambda fault: (fault.at_ms, fault.kind)))


def _single(
    kind: FaultKind, *, for_ms: tuple[int, int] = (30, 200), amount: tuple[int, int] = (0, 0)
) -> Episode:
    def episode(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
        return [Fault(at_ms=at_ms, kind=kind, for_ms=choose.randint(*for_ms), amount=choose.randint(*amount))]

    return episode


def _kill_writers(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
    return [
        Fault(
            at_ms=at_ms + choose.randrange(200),
            kind=FaultKind.KILL_WRITER,
            target=target,
            for_ms=choose.randint(1, 80),
        )
        for target in choose.sample(writers, choose.randint(1, 3))
    ]


def _stop_somebody(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
    target = choose.choice([*writers, "journal", "journal", "server"])
    return [Fault(at_ms=at_ms, kind=FaultKind.STOP, target=target, for_ms=choose.randint(30, 400))]


def _crash_while_the_journal_is_behind(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
    """What is committed meanwhile is in nobody's file but the server's, which then loses its end."""
    stopped_ms = choose.randint(120, 250)
    crash_ms = choose.randint(40, stopped_ms - 20)
    return [
        Fault(at_ms=at_ms, kind=FaultKind.STOP, target="journal", for_ms=stopped_ms),
        Fault(
            at_ms=at_ms + crash_ms,
            kind=FaultKind.KILL_SERVER,
            for_ms=choose.randint(5, 60),
            amount=choose.choice([2_000, 8_000, 60_000]),
        ),
    ]


def _crash_of_a_journaled_server(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
    """The server forgets what the journal has, while nobody is there to say so."""
    down_ms = choose.randint(5, 30)
    return [
        Fault(
            at_ms=at_ms, kind=FaultKind.KILL_SERVER, for_ms=down_ms, amount=choose.choice([20_000, 80_000])
        ),
        Fault(
            at_ms=at_ms + 1, kind=FaultKind.STOP, target="journal", for_ms=down_ms + choose.randint(50, 150)
        ),
    ]


def _archive(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
    """Closed trades go to the archive; half of the time their keeper dies over it."""
    found = [Fault(at_ms=at_ms, kind=FaultKind.ARCHIVE)]
    if choose.randrange(2):
        died_ms = at_ms + choose.randint(2, 60)
        found.append(Fault(at_ms=died_ms, kind=FaultKind.KILL_JOURNAL, for_ms=choose.randint(1, 60)))
    return found


def _jump(choose: random.Random, at_ms: int, writers: list[str]) -> list[Fault]:
    seconds = choose.choice([-7200, -90, 90, 7200])
    return [Fault(at_ms=at_ms, kind=FaultKind.JOURNAL_CLOCK, for_ms=300, amount=seconds)]


_kill_server = _single(FaultKind.KILL_SERVER, amount=(0, 60_000))
_power_cut = _single(FaultKind.POWER_CUT, amount=(0, 60_000))
_CRASHES = [
    _kill_server,
    _power_cut,
    _crash_while_the_journal_is_behind,
    _crash_while_the_journal_is_behind,
    _crash_of_a_journaled_server,
]
_EPISODE_KINDS = [
    *_CRASHES,
    _kill_writers,
    _kill_writers,
    _stop_somebody,
    _stop_somebody,
    _jump,
    _archive,
    _archive,
    _single(FaultKind.EMPTY_SERVER),
    _single(FaultKind.KILL_JOURNAL, for_ms=(1, 60)),
    _single(FaultKind.DIE_IN_WRITE, for_ms=(1, 60), amount=(0, 100)),
    _single(FaultKind.DIE_BEFORE_FSYNC, for_ms=(1, 60)),
    _single(FaultKind.DIE_AFTER_FSYNC, for_ms=(1, 60)),
    _single(FaultKind.DISK_FULL, for_ms=(80, 300), amount=(0, 100)),
    _single(FaultKind.WRITE_EIO, for_ms=(80, 300)),
    _single(FaultKind.FSYNC_EIO, for_ms=(80, 300)),
    _single(FaultKind.FILE_LIMIT, for_ms=(80, 300), amount=(0, 3_000)),
    _single(FaultKind.CUT),
    _single(FaultKind.HALF_OPEN, for_ms=(50, 300)),
    _single(FaultKind.SWALLOW, for_ms=(50, 300)),
    _single(FaultKind.DELAY, for_ms=(50, 300), amount=(2, 40)),
    _single(FaultKind.MEMORY_FULL),
    _single(FaultKind.REWRITE_AOF, for_ms=(0, 0)),
    _single(FaultKind.SNAPSHOT, for_ms=(0, 0)),
]
