"""One look at a running fleet: queues, journal, last audit, last marks, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import msgspec

from tradepool import wire
from tradepool.audit.parts.run_board import RunningAudit
from tradepool.errors import TradePoolError
from tradepool.fleet.broker_state import BrokerState
from tradepool.fleet.folder_state import FolderState
from tradepool.fleet.problems import Problem, problems_of
from tradepool.fleet.state import PoolState, Watcher, seconds_since
from tradepool.fleet.store_state import StoreState
from tradepool.store.address import shown

__all__ = ["Health", "read_health"]


class QueueHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on a queue, for how long, and how many workers live that take it."""

    depth: int
    age_s: float | None
    """Of the message that is next; None: none waits."""
    workers: int | None = None
    """None for the dead letters, which nobody takes."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pool and its fleet at one moment.

    `journal_lag` counts outbox entries that are not journaled yet, the first of which has waited for
    `journal_lag_s`; `records` is what the journal holds; `last_audit` and `last_marks` are as their tasks
    left them, None before the first; `marks_age_s` is how long ago the prices of those marks were. `queues`
    is empty where there is no fleet, or its broker does not answer.
    """

    server: str
    is_fenced: bool
    queues: dict[str, QueueHealth]
    unacked: int
    journal_lag: int
    journal_lag_s: float
    records: int
    last_audit: dict[str, Any] | None
    running_audits: tuple[RunningAudit, ...]
    last_marks: dict[str, Any] | None
    marks_age_s: float | None
    snapshot_age_s: float | None
    book_differences: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def read_health(watcher: Watcher) -> Health:
    """How the pool of `watcher` and its fleet are. A broker that does not answer is one of the problems.

    Raises: StoreUnavailable, Misconfigured, Corrupt when the store cannot be asked.
    """
    state = watcher.look()
    store = state.store
    if isinstance(store, TradePoolError):
        raise store
    marks = None if store.marks is None else msgspec.to_builtins(store.marks.totals)
    folder = state.folder if isinstance(state.folder, FolderState) else None
    return Health(
        server=shown(watcher.settings.redis_url),
        is_fenced=store.is_fenced,
        queues=_queues(state, store),
        unacked=state.broker.unacked.depth if isinstance(state.broker, BrokerState) else 0,
        journal_lag=store.outbox,
        journal_lag_s=seconds_since(store.behind_since, state.at),
        records=store.records,
        last_audit=None if store.last_audit is None else msgspec.to_builtins(store.last_audit),
        running_audits=store.running_audits,
        last_marks=None if marks is None else {name: marks[name] for name in marks if name != "symbols"},
        marks_age_s=None if marks is None else _age_s(marks["at"], state.at),
        snapshot_age_s=None if folder is None else _age_s(folder.snapshot_at, state.at),
        book_differences=store.book_differences,
        problems=problems_of(state, watcher.settings),
    )


def _queues(state: PoolState, store: StoreState) -> dict[str, QueueHealth]:
    broker = state.broker
    if not isinstance(broker, BrokerState):
        return {}
    queues = {
        queue: QueueHealth(
            depth=waiting.depth,
            age_s=_age_s(waiting.oldest_at, state.at),
            workers=store.workers[queue].alive,
        )
        for queue, waiting in broker.queues.items()
    }
    dead = QueueHealth(depth=broker.dead.depth, age_s=_age_s(broker.dead.oldest_at, state.at))
    return {**queues, wire.QUEUE_DEAD: dead}


def _age_s(since: int | None, at: int) -> float | None:
    return None if since is None else seconds_since(since, at)
