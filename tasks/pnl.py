"""Tasks on the gpu queue: marking the book. The worker runs one at a time (`-P solo`), on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tasks.app import app
from tasks.pool_task import PoolTask
from tasks.ticks import TickTask, other_queues, pass_on
from tradepool.errors import InvalidTrade, Rejected
from tradepool.marking.mark_totals import MarkTotals
from tradepool.marking.tick import Tick

__all__ = ["check_book", "mark_to_market", "stress_test"]


@app.task(base=TickTask, bind=True, name="tasks.pnl.mark_to_market")
def mark_to_market(
    self: TickTask,
    prices: Mapping[str, Any] | None = None,
    at: Any = None,
    stale: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Value every open trade at `prices`, or at the stored ones when None; now, or at `at`.

    A tick that a newer one waits behind, or of whose `at` newer marks stand, is dropped as `stale`. With
    several devices the worker of `gpu` passes each tick on, with the prices it found and which of them are
    `stale` (their age in seconds).
    """
    if not self.is_stale(at):
        return _told(_mark(self, prices, at, stale))
    if (newest := self.jump_ahead()) is not None:
        # What it has wrong is told when its own turn comes.
        with contextlib.suppress(Rejected):
            _mark(self, **newest)
    return {"outcome": "stale"}


@app.task(base=PoolTask, name="tasks.pnl.stress_test", ignore_result=False)
def stress_test(
    scenarios: Mapping[str, Any] | Sequence[Any],
    prices: Mapping[str, Any] | None = None,
    confidence: Any = "0.95",
    users: Sequence[str] = (),
) -> dict[str, Any]:
    """What the open trades would gain or lose in each scenario: the fleet's figures, and those of `users`.

    Of the whole pool on any device. Ticks wait meanwhile: a worker does one thing at a time.
    """
    marking = app.services.marking
    return marking.stress_test(scenarios, prices=prices, confidence=confidence, users=users).to_dict(users)


@app.task(base=PoolTask, bind=True, name="tasks.pnl.check_book")
def check_book(self: PoolTask) -> dict[str, Any]:
    """Compare the book with the store, on every device; the reports are kept for the audit.

    A gpu worker does it beside its ticks and tells its log; any other answers with the figures.
    """
    for queue in other_queues(self):
        pass_on(self, queue)
    keeper = app.book_keeper
    if keeper is not None:
        return {"outcome": "started" if keeper.check() else "running"}
    checked = app.services.marking.check_book()
    return {"outcome": "checked", "rows": checked.rows, "different": checked.different}


def _mark(
    task: TickTask, prices: Mapping[str, Any] | None, at: Any, stale: Mapping[str, float] | None
) -> MarkTotals:
    tick = _tick(prices, at, stale)
    task.pass_on(tick)
    marked = app.services.marking.mark(tick)
    task.note_marked()
    return marked.totals


def _tick(prices: Mapping[str, Any] | None, at: Any, stale: Mapping[str, float] | None) -> Tick:
    """Raises: InvalidTrade for what the message has wrong."""
    tick = app.services.marking.tick(prices, at=at)
    if not stale:
        return tick
    try:
        return msgspec.structs.replace(tick, stale=msgspec.convert(stale, dict[str, float]))
    except msgspec.ValidationError as problem:
        cure = "leave it out: the fleet adds it"
        raise InvalidTrade(str(problem), field="stale", value=stale, cure=cure) from problem


def _told(totals: MarkTotals) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(totals)
    del told["symbols"]
    return {"outcome": "marked", **told}
