"""What a seed does to the fleet: which fault strikes whom, after how much of the work, for how long."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum

import msgspec

__all__ = ["FULL_TRADES", "Fault", "FaultKind", "make_plan", "wanted_counts"]

FULL_TRADES = 100_000
"""For so many trades the counts below are meant; fewer trades meet fewer faults, each kind at least once."""


class FaultKind(StrEnum):
    """What can befall the fleet."""

    WORKER = "worker"
    """kill -9 of a worker with threads, of any pool."""
    PREFORK_CHILD = "prefork-child"
    """kill -9 of the process that runs tasks for a prefork worker."""
    PREFORK_PARENT = "prefork-parent"
    """kill -9 of the prefork worker itself, its children left to themselves."""
    FILES = "files"
    """kill -9 of the worker that owns the journal."""
    BEAT = "beat"
    """kill -9 of one of the two clocks."""
    SERVER = "server"
    """kill -9 of broker and store, which stay away for a moment."""
    RESTART = "restart"
    """SIGTERM of the same: it takes leave of everybody."""
    CLIENT = "client"
    """kill -9 of a bot; another one goes on from its spool."""
    CLIENT_WIRE = "client-wire"
    """The bots' connections are half open: bytes vanish, and nobody is told."""
    WORKER_WIRE = "worker-wire"
    """The same between fleet and server."""
    STOP = "stop"
    """SIGSTOP of a worker, files worker included, SIGCONT later."""
    UP = "up"
    """kill -9 of the supervisor; another one is started."""
    DISK = "disk"
    """The files of the journal's worker grow no more, mostly in the middle of a write."""
    MEMORY = "memory"
    """Broker and store are out of memory: they refuse whatever needs some."""


_COUNTS = {
    FaultKind.WORKER: 12,
    FaultKind.PREFORK_CHILD: 8,
    FaultKind.PREFORK_PARENT: 5,
    FaultKind.FILES: 6,
    FaultKind.BEAT: 4,
    FaultKind.SERVER: 5,
    FaultKind.RESTART: 10,
    FaultKind.CLIENT: 8,
    FaultKind.CLIENT_WIRE: 5,
    FaultKind.WORKER_WIRE: 5,
    FaultKind.STOP: 8,
    FaultKind.UP: 2,
    FaultKind.DISK: 5,
    FaultKind.MEMORY: 4,
}
_LENGTHS_S = {
    FaultKind.SERVER: (0.1, 3.0),
    FaultKind.RESTART: (0.1, 2.0),
    FaultKind.CLIENT: (0.1, 2.0),
    FaultKind.CLIENT_WIRE: (0.5, 5.0),
    FaultKind.WORKER_WIRE: (0.5, 5.0),
    # Some beyond the visibility timeout of the run: its messages are given to another worker meanwhile.
    FaultKind.STOP: (0.5, 13.0),
    FaultKind.UP: (0.1, 2.0),
    FaultKind.DISK: (0.5, 5.0),
    FaultKind.MEMORY: (0.5, 5.0),
}
_DELAY_MAX_S = 1.5
_FIRST, _LAST = 0.02, 0.97


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: `after_s` seconds after the share `at` of all trades was handed in."""

    kind: FaultKind
    at: float
    after_s: float
    for_s: float
    pick: float
    """From 0 to 1: which of those that it may strike."""

    def __str__(self) -> str:
        return (
            f"{self.at:6.1%} +{self.after_s:.2f} s  {self.kind} for {self.for_s:.2f} s (pick {self.pick:.2f})"
        )


def wanted_counts(text: str, trades: int) -> dict[FaultKind, int]:
    """How often each kind strikes: `all`, or kinds with commas between, each perhaps with `:times`.

    Raises: ValueError for a kind that there is not.
    """
    names = [kind.value for kind in FaultKind] if text == "all" else [n for n in text.split(",") if n]
    counts: dict[FaultKind, int] = {}
    for name in names:
        kind_name, _, times = name.partition(":")
        kind = FaultKind(kind_name)
        counts[kind] = int(times) if times else max(1, round(_COUNTS[kind] * trades / FULL_TRADES))
    return counts


def make_plan(seed: int, counts: Mapping[FaultKind, int]) -> tuple[Fault, ...]:
    """The faults of a seed, in the order in which they come due."""
    choose = random.Random(f"chaos {seed}")
    faults = [
        Fault(
            kind=kind,
            at=choose.uniform(_FIRST, _LAST),
            after_s=choose.uniform(0, _DELAY_MAX_S),
            for_s=choose.uniform(*_LENGTHS_S.get(kind, (0.0, 0.0))),
            pick=choose.random(),
        )
        for kind in FaultKind
        for _ in range(counts.get(kind, 0))
    ]
    return tuple(sorted(faults, key=lambda fault: fault.at))
