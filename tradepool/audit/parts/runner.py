"""Runs: begun, and done part by part in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec

from tradepool.audit.parts.join import joined
from tradepool.audit.parts.part import Answer, Run
from tradepool.audit.parts.stages import STAGES, Stages, groups_of
from tradepool.audit.parts.work import PartWork
from tradepool.audit.report import AuditReport
from tradepool.audit.rules.registry import Level
from tradepool.errors import StoreUnavailable
from tradepool.store.redis_store import RedisStore

__all__ = ["ATTEMPTS_MAX", "Progress", "Runner", "recovered_each_time"]

ATTEMPTS_MAX = 3
"""How often an audit begins: a recovery of the server takes back what was seen before it."""
Progress = Callable[[int, int], None]
"""Called with how many parts are done, and how many there are in all by now."""


class Runner:
    """Begins runs on one store, and does all of one in this process."""

    def __init__(self, store: RedisStore, stages: Stages, work: PartWork, now_us: Callable[[], int]) -> None:
        self._store = store
        self._stages = stages
        self._work = work
        self._now_us = now_us

    def begun(self, asked: Run) -> Run:
        """The run that is `asked` for, as of now: its generation, its groups of shards, how many parts.

        Raises: StoreUnavailable, Fenced, JournalUnavailable.
        """
        run = msgspec.structs.replace(
            asked, generation=self._store.generation(), started_at=self._now_us(), groups=self._groups(asked)
        )
        return msgspec.structs.replace(run, forecast=self._stages.forecast(run))

    def report(self, asked: Run, progress: Progress | None = None) -> AuditReport:
        """Do all of a run here, one part after the other; again when the server was recovered meanwhile.

        Raises: StoreUnavailable when it does not stay up for one audit; else as `PartWork.do`.
        """
        for _ in range(ATTEMPTS_MAX):
            run = self.begun(asked)
            with contextlib.ExitStack() as held:
                if run.level is not Level.DIGEST:
                    held.enter_context(self._work.folder.held(run.run_id))
                answers = self._answers(run, progress)
            report = joined(run, answers, now_us=self._now_us())
            if self._store.generation() == run.generation:
                return report
        raise StoreUnavailable(recovered_each_time())

    def _answers(self, run: Run, progress: Progress | None) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        planned = 0
        for stage in range(STAGES):
            parts = self._stages.parts(run, stage, answers)
            planned += len(parts)
            for part in parts:
                answers[part.name] = self._work.do(run, part, answers)
                if progress is not None:
                    progress(len(answers), max(planned, run.forecast))
        return answers

    def _groups(self, asked: Run) -> tuple[tuple[int, ...], ...]:
        shards = self._store.keys.shards
        if asked.level is Level.DIGEST:
            return (tuple(shards),)
        with contextlib.suppress(ValueError):
            return groups_of(shards, sum(shard.count for shard in self._store.journaled_shards()))
        # What the journal's writer has published cannot be read, which the audit will tell.
        return groups_of(shards, 0)


def recovered_each_time() -> str:
    """Why an audit has given up."""
    return f"the server was recovered during each of {ATTEMPTS_MAX} audits"
