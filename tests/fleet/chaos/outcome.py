"""What a run came to: counts, waits, recovery times, and the table of them."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tests.fleet.chaos.fleet_process import PREFORK
from tests.fleet.chaos.notes import Note
from tests.fleet.chaos.plan import FaultKind
from tests.fleet.chaos.stage import Stage

__all__ = ["Outcome", "Struck", "Wait", "resends_in", "self_ended", "table", "windows_seen"]

_ENDED = re.compile(r"program ended.*?exit_code\W*?(-?\d+)\W.*?program\W+([\w-]+)")
_PLAIN = re.compile(r"\x1b\[[\d;]*m")
_KILLED = -9
_BEAT_LEADERSHIP = "beat"
_CHILD_LOST_AT_START = "Could not start worker processes"
"""The last word of a prefork worker that has lost a child before it looked at them for the first time."""


class Struck(msgspec.Struct, frozen=True, kw_only=True):
    """A fault as it happened."""

    kind: FaultKind
    at: float
    """Seconds since 1970."""
    for_s: float


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """A window of trades, from the first of its calls until the client knew all of it journaled."""

    began_at: float
    confirmed_at: float
    commands: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seed: int
    trades: int
    commands: int
    violations: list[str]
    struck: list[Struck]
    seconds: float
    """From the start of fleet and clients to the end of the last client and the last fault."""
    outcomes: dict[str, int]
    """Messages that were redelivered, and commands by outcome, but for `applied`."""
    resends: int
    """Commands that clients sent again, unconfirmed for too long."""
    longest_call_s: float
    """How long a call of a client took at most."""
    windows: list[Wait]

    @property
    def longest_wait_s(self) -> float:
        """From a window's first call to its confirmation, at most."""
        return max((window.confirmed_at - window.began_at for window in self.windows), default=0.0)

    def recovery_s(self, kind: FaultKind) -> list[float]:
        """For each fault of that kind, how long it took until all that was under way then was confirmed."""
        return sorted(
            max((w.confirmed_at - at for w in self.windows if w.began_at <= at < w.confirmed_at), default=0.0)
            for at in (struck.at for struck in self.struck if struck.kind is kind)
        )


def windows_seen(notes: Mapping[int, Sequence[Note]]) -> list[Wait]:
    """Every window that was begun and confirmed, from its first beginning to its last confirmation."""
    seen: list[Wait] = []
    for client in notes.values():
        began: dict[int, float] = {}
        confirmed: dict[int, Note] = {}
        for note in client:
            if note.what == "begun":
                began.setdefault(note.window, note.at)
            elif note.what == "confirmed":
                confirmed[note.window] = note
        seen += [
            Wait(began_at=began[number], confirmed_at=note.at, commands=note.commands)
            for number, note in confirmed.items()
        ]
    return seen


def resends_in(client_log: str) -> int:
    """Commands that a client says it has sent again."""
    return sum(map(int, re.findall(r"sending again\s+commands=(\d+)", _PLAIN.sub("", client_log))))


def self_ended(stage: Stage) -> Iterator[str]:
    """Programs that ended though nobody killed them.

    But a beat does when it finds that it leads no more, and Celery ends a prefork worker whose child was
    killed while it started: so often as it says so.
    """
    excused = Counter({PREFORK: stage.worker_log(PREFORK).count(_CHILD_LOST_AT_START)})
    for code, name in _ENDED.findall(_PLAIN.sub("", stage.log("fleet"))):
        if int(code) == _KILLED or name.startswith(_BEAT_LEADERSHIP):
            continue
        excused[name] -= 1
        if excused[name] < 0:
            last = "\n".join(stage.worker_log(name).splitlines()[-12:])
            yield f"{name} with {code}: {last}"


def table(outcome: Outcome) -> str:
    """The run in rows, for docs and for whoever watches."""
    size = f"{outcome.trades:,} trades, {outcome.commands:,} commands"
    lines = [
        f"seed {outcome.seed}: {size} in {outcome.seconds:.0f} s",
        "",
        "| fault | times | recovery median | recovery longest |",
        "|---|---:|---:|---:|",
    ]
    done = Counter(struck.kind for struck in outcome.struck)
    for kind, times in sorted(done.items()):
        waits = outcome.recovery_s(kind)
        lines.append(f"| {kind} | {times} | {statistics.median(waits):.1f} s | {waits[-1]:.1f} s |")
    counts = {
        "messages delivered again": outcome.outcomes.get("redelivered", 0),
        "commands sent again by clients": outcome.resends,
        "duplicates absorbed": outcome.outcomes.get("duplicate", 0),
        "commands refused, failed or late": sum(
            outcome.outcomes.get(name, 0) for name in ("rejected", "failed", "stale", "later")
        ),
        "violations": len(outcome.violations),
    }
    lines += ["", *(f"{name}: {number:,}" for name, number in counts.items())]
    lines.append(f"longest call of a client: {outcome.longest_call_s * 1000:.0f} ms")
    lines.append(
        f"longest wait from a window's first call to its confirmation: {outcome.longest_wait_s:.1f} s"
    )
    return "\n".join(lines)
