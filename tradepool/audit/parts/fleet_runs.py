"""Runs that the workers of a fleet do together, a message to a part.

Nobody waits and nobody leads: whoever answers the last part of a stage plans the next one and sends its
messages, whoever answers the last part of all joins. Everything is claimed in Redis, first come first
served, and every message is done again when its worker dies. So a death only delays: what it left undone is
done by whoever gets its message next, and what was done before is found there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tradepool.audit.finishing import Finishing
from tradepool.audit.parts.join import joined
from tradepool.audit.parts.part import Part, Run
from tradepool.audit.parts.run_board import Ended, RunBoard, RunningAudit, RunState
from tradepool.audit.parts.runner import ATTEMPTS_MAX, Runner, recovered_each_time
from tradepool.audit.parts.stages import STAGES, Stages
from tradepool.audit.parts.work import PartWork
from tradepool.audit.report import AuditReport
from tradepool.logger import Logger
from tradepool.store.redis_store import RedisStore

__all__ = ["FleetRuns", "Send"]

Send = Callable[[str, Sequence[str]], None]
"""Sends a message for each of some parts (by name) of a run (by id)."""

log = Logger(__name__)


class FleetRuns:
    """Begins runs that others go on with, and goes on with those that others began."""

    def __init__(
        self,
        store: RedisStore,
        runner: Runner,
        stages: Stages,
        work: PartWork,
        finishing: Finishing,
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._runner = runner
        self._stages = stages
        self._work = work
        self._finishing = finishing
        self._now_us = now_us
        self.board = RunBoard(store, now_us)

    def start(self, asked: Run, send: Send) -> None:
        """Begin a run; one that was begun under its id goes on. Raises: Unavailable; then ask again."""
        self.sweep()
        if self.board.state(asked.run_id) is None:
            self.board.begin(self._runner.begun(asked))
        self._advance(asked.run_id, send, is_repeat=True)

    def do_part(self, run_id: str, name: str, send: Send) -> None:
        """Do a part of a run, unless that is done, and what follows from it.

        Raises: Unavailable, Misconfigured; then it has to be done again.
        """
        state = self.board.state(run_id)
        part = None if state is None else state.part(name)
        if state is None or part is None:
            log.warning("a part of an audit that is over", run_id=run_id, part=name)
            return
        if state.ended is not None:
            self._leave(state.run)
            return
        is_repeat = name in state.answered
        if not is_repeat:
            if self._is_recovered(state.run):
                self._begin_again(state.run, send)
                return
            answer = self._work.do(state.run, part, self.board.answers(state, state.stage_of(name)))
            if self._is_recovered(state.run):
                self._begin_again(state.run, send)
                return
            is_repeat = not self.board.answer(run_id, name, answer)
        self._advance(run_id, send, is_repeat=is_repeat)

    def running(self) -> tuple[RunningAudit, ...]:
        """The runs under way, and those that were lost, the oldest first."""
        return self.board.running()

    def sweep(self) -> None:
        """Tell of runs that were lost, and remove what dead ones have left."""
        alive = set()
        for run in self.board.running():
            if not run.lost:
                alive.add(run.run_id)
            elif self.board.forget(run.run_id):
                log.error(
                    "an audit never became a report",
                    run_id=run.run_id,
                    level=run.level,
                    started_at=run.started_at,
                )
        self._work.folder.sweep(alive)

    def end_at_once(self, run_id: str, report: AuditReport) -> None:
        """Keep the report of a run that had no parts, for whoever asks for it by its id."""
        self.board.end(run_id, Ended(report=report.to_dict()))

    def _is_recovered(self, run: Run) -> bool:
        return self._store.generation() != run.generation

    def _advance(self, run_id: str, send: Send, *, is_repeat: bool) -> None:
        """Go on where a stage is complete. Only one who comes first sends, unless what he did is repeated."""
        for _ in range(STAGES + 1):
            state = self.board.state(run_id)
            if state is None:
                return
            if state.ended is not None:
                self._leave(state.run)
                return
            stage = len(state.stages) - 1
            if waiting := state.waiting():
                if is_repeat and stage not in state.sent:
                    self._send(run_id, stage, waiting, send)
                return
            if stage == STAGES - 1:
                self._join(state, send, is_repeat=is_repeat)
                return
            parts = self._stages.parts(state.run, stage + 1, self.board.answers(state, stage + 1))
            if not self.board.plan(run_id, stage + 1, parts):
                # Somebody else was first, and sends what he has planned.
                return
            self._send(run_id, stage + 1, parts, send)

    def _send(self, run_id: str, stage: int, parts: Sequence[Part], send: Send) -> None:
        send(run_id, [part.name for part in parts])
        self.board.note_sent(run_id, stage)

    def _join(self, state: RunState, send: Send, *, is_repeat: bool) -> None:
        if not self.board.claim_join(state.run.run_id) and not is_repeat:
            return
        run = state.run
        report = joined(run, self.board.answers(state, STAGES), now_us=self._now_us())
        if self._is_recovered(run):
            self._begin_again(run, send)
            return
        report = self._finishing.repaired(report, repair=run.repair, quarantine=run.quarantine)
        report = self._finishing.kept(report)
        self._end(run, Ended(report=report.to_dict()))

    def _begin_again(self, run: Run, send: Send) -> None:
        """What was seen before a recovery may be gone."""
        if run.attempt >= ATTEMPTS_MAX:
            log.error("an audit never became a report", run_id=run.run_id, problem=recovered_each_time())
            self._end(run, Ended(problem=recovered_each_time()))
            return
        attempt = run.attempt + 1
        again = msgspec.structs.replace(run, run_id=f"{run.audit_id}.{attempt}", attempt=attempt)
        log.warning("the server was recovered during an audit, which begins again", run_id=again.run_id)
        self.start(again, send)
        self._end(run, Ended(successor=again.run_id))

    def _end(self, run: Run, ended: Ended) -> None:
        self.board.end(run.run_id, ended)
        self._leave(run)

    def _leave(self, run: Run) -> None:
        """Clear up behind a run that has ended; who ended it may have died before that."""
        self.board.forget(run.run_id)
        self._work.folder.remove(run.run_id)
