"""What the workers of a fleet know of the runs that they do together (`store.audit_runs` has it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from tradepool.audit.parts.part import Answer, Part, Run
from tradepool.audit.parts.stages import STAGES
from tradepool.audit.rules.registry import Level
from tradepool.store.audit_runs import AuditRuns

__all__ = ["Ended", "RunBoard", "RunState", "RunningAudit"]

IDLE_MAX_S = 6 * 3600
"""A run that nobody moves for so long is lost."""
_ENDED_KEPT_S = 3600
_US_PER_S = 1_000_000
_RUN, _ENDED, _JOINING, _PART = "run", "ended", "joining", "part:"


class RunningAudit(msgspec.Struct, frozen=True, kw_only=True):
    """An audit that the fleet is doing; `started_at` is µs."""

    run_id: str
    level: Level
    started_at: int
    done: int
    """Parts that are done."""
    parts: int
    """Parts that there are in all, as far as that is known by now."""
    idle_s: float
    """How long ago a part was last done."""
    lost: bool = False
    """Nobody has moved it for hours, so it will never become a report."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run has ended: with a report, without one, or in another run that began in its place."""

    report: dict[str, Any] | None = None
    problem: str = ""
    successor: str = ""


class RunState(NamedTuple):
    """A run as it stands: its stages as far as they are planned, and which parts are answered."""

    run: Run
    stages: list[tuple[Part, ...]]
    sent: frozenset[int]
    """Stages whose messages were all sent."""
    answered: frozenset[str]
    ended: Ended | None

    def part(self, name: str) -> Part | None:
        """The part of that name, if there is one by now."""
        return next((part for stage in self.stages for part in stage if part.name == name), None)

    def stage_of(self, name: str) -> int:
        """The stage that a part is in."""
        return next(n for n, stage in enumerate(self.stages) for part in stage if part.name == name)

    def waiting(self) -> list[Part]:
        """The parts of the last stage that are not answered."""
        return [part for part in (self.stages or [()])[-1] if part.name not in self.answered]


class _Told(msgspec.Struct, frozen=True):
    """What is announced of a run."""

    level: Level
    started_at: int
    forecast: int


_RUN_DECODER = msgspec.json.Decoder(Run)
_STAGE_DECODER = msgspec.json.Decoder(tuple[Part, ...])
_ANSWER_DECODER = msgspec.json.Decoder(Answer)
_ENDED_DECODER = msgspec.json.Decoder(Ended)
_TOLD_DECODER = msgspec.json.Decoder(_Told)


class RunBoard:
    """The runs in one store. All methods raise StoreUnavailable."""

    def __init__(self, store: AuditRuns, now_us: Callable[[], int]) -> None:
        self._store = store
        self._now_us = now_us

    def begin(self, run: Run) -> None:
        """Have the run be known; one that was begun under its id stays as it is."""
        self._claim(run.run_id, _RUN, run)
        # Announced once it is there: what is announced and not there is lost.
        told = _Told(run.level, run.started_at, run.forecast)
        self._store.announce_audit(run.run_id, msgspec.json.encode(told))

    def state(self, run_id: str) -> RunState | None:
        """How a run stands; None where there is none, or none any more."""
        fields = [_RUN, _ENDED, *map(_stage, range(STAGES))]
        run, ended, *stages = self._store.fields_of_audit(run_id, fields)
        names = self._store.field_names_of_audit(run_id)
        if run is None:
            return None
        return RunState(
            run=_RUN_DECODER.decode(run),
            stages=[_STAGE_DECODER.decode(stage) for stage in stages if stage is not None],
            sent=frozenset(stage for stage in range(STAGES) if _sent(stage) in names),
            answered=frozenset(name.removeprefix(_PART) for name in names if name.startswith(_PART)),
            ended=None if ended is None else _ENDED_DECODER.decode(ended),
        )

    def answers(self, state: RunState, stage: int) -> dict[str, Answer]:
        """The answers of all parts of the stages before `stage`."""
        names = [part.name for parts in state.stages[:stage] for part in parts]
        values = self._store.fields_of_audit(state.run.run_id, [_PART + name for name in names])
        return {
            name: _ANSWER_DECODER.decode(value)
            for name, value in zip(names, values, strict=True)
            if value is not None
        }

    def plan(self, run_id: str, stage: int, parts: Sequence[Part]) -> bool:
        """Say which parts a stage has; False where somebody else has said so before."""
        return self._claim(run_id, _stage(stage), parts)

    def note_sent(self, run_id: str, stage: int) -> None:
        """All messages of a stage are sent."""
        self._claim(run_id, _sent(stage), True)  # noqa: FBT003 - a value, no flag

    def answer(self, run_id: str, name: str, answer: Answer) -> bool:
        """Answer a part; False where it is answered already: the first answer stands."""
        return self._claim(run_id, _PART + name, answer)

    def claim_join(self, run_id: str) -> bool:
        """Be the one who joins; False where somebody else is."""
        return self._claim(run_id, _JOINING, True)  # noqa: FBT003 - a value, no flag

    def end(self, run_id: str, ended: Ended) -> None:
        """Say how a run has ended; the first one stands. What is left of it goes after an hour."""
        self._claim(run_id, _ENDED, ended, kept_s=_ENDED_KEPT_S)

    def ended(self, run_id: str) -> Ended | None:
        """How a run has ended; None before that, and an hour after it."""
        (value,) = self._store.fields_of_audit(run_id, [_ENDED])
        return None if value is None else _ENDED_DECODER.decode(value)

    def forget(self, run_id: str) -> bool:
        """Announce a run no more; whether it was announced."""
        return self._store.forget_audit(run_id)

    def running(self) -> tuple[RunningAudit, ...]:
        """What was announced and has not ended, the oldest first."""
        announced = self._store.announced_audits()
        states = {run_id: self.state(run_id) for run_id in announced}
        found = [
            self._running(run_id, announced[run_id], state)
            for run_id, state in states.items()
            if state is None or state.ended is None
        ]
        return tuple(sorted(found, key=lambda run: (run.started_at, run.run_id)))

    def _running(self, run_id: str, value: bytes, state: RunState | None) -> RunningAudit:
        told, moved_at = _TOLD_DECODER.decode(value), self._store.audit_moved_at(run_id)
        planned = 0 if state is None else sum(map(len, state.stages))
        return RunningAudit(
            run_id=run_id,
            level=told.level,
            started_at=told.started_at,
            done=0 if state is None else len(state.answered),
            parts=max(planned, told.forecast),
            idle_s=max(0, self._now_us() - (moved_at or told.started_at)) / _US_PER_S,
            lost=state is None,
        )

    def _claim(self, run_id: str, field: str, value: object, *, kept_s: int = IDLE_MAX_S) -> bool:
        return self._store.claim_of_audit(
            run_id, field, msgspec.json.encode(value), at_us=self._now_us(), kept_s=kept_s
        )


def _stage(stage: int) -> str:
    return f"stage:{stage}"


def _sent(stage: int) -> str:
    return f"sent:{stage}"
