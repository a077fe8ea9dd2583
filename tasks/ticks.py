"""What a tick goes through before it is marked: it may be stale, may wait for the book, and is passed on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from tasks.pool_task import PoolTask
from tasks.queued_ticks import QueuedTicks, time_of_tick
from tradepool import wire
from tradepool.errors import Rejected, TradePoolError, Unavailable
from tradepool.logger import CauseLog, Logger
from tradepool.marking.tick import Tick

if TYPE_CHECKING:
    from tasks.app import PoolApp

__all__ = ["TickTask", "other_queues", "pass_on"]

log = Logger(__name__)

WAIT_SHARE = 0.25
"""How long a tick waits for a book that is being built, as a share of the visibility timeout."""
LOOK_EVERY_S = 0.2
BEHIND_MAX_S = 1.0
"""How long ticks are dropped for newer ones before one is marked in between."""
PASSED_ON_MAX = 16
"""Ticks that may wait for a device; beyond that it is away, and its queue must not fill the broker."""

_PASSED_ON = "passed_on"
"""The header of a message that another device has taken from `gpu`."""


def pass_on(task: PoolTask, queue: str, **options: Any) -> None:
    """Send the call that `task` runs to `queue`, as it is or with other `kwargs`; it goes no further.

    Raises: OperationalError.
    """
    task.apply_async(
        queue=queue,
        task_id=f"{task.request.id}-{queue}",
        expires=task.request.expires,
        headers={_PASSED_ON: True},
        retry=False,
        **options,
    )


def other_queues(task: PoolTask) -> Sequence[str]:
    """Where the call that `task` runs is to be passed on to: the first device does it, for all others."""
    settings = task.app.settings
    if settings.pnl_device != 0 or task.request.called_directly or task.request.get(_PASSED_ON):
        return ()
    return wire.device_queues(settings.pnl_devices)[1:]


class TickTask(PoolTask):
    """A task whose messages are ticks: only the newest counts, and none is ever tried again.

    The next tick comes; what ails them is logged once, however many of them it fails.
    """

    throws = (TradePoolError,)
    app: PoolApp

    def __init__(self) -> None:
        self._failures = CauseLog(log, "ticks fail")
        self._pass_on_failures = CauseLog(log, "ticks are not passed on")
        self._dropped = 0
        self._marked_s = math.inf

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run. Raises: Reject, which returns the message to the queue, when the worker stops meanwhile."""
        try:
            result = super().__call__(*args, **kwargs)
        except Rejected:
            raise
        except TradePoolError as problem:
            self._failures.failed(problem)
            raise
        self._failures.worked()
        return result

    def is_stale(self, at: object) -> bool:
        """Whether this tick, of `at`, is not to be marked any more. It may wait for the book before.

        Raises: InvalidTrade when `at` is no time; StoreUnavailable; Reject.
        """
        about = self.request.delivery_info or {}
        if self.request.called_directly or about.get("is_eager"):
            return False
        time_us = time_of_tick(at, self.request.get("sent_at"))
        is_stale = self._is_overtaken(time_us) or (self._waited() and self._is_overtaken(time_us))
        self._marked_s = min(self._marked_s, time.monotonic())
        # One without a time of its own is of now, unless it comes again after its worker was killed.
        is_of_then = at is not None or about.get("redelivered")
        if is_stale or (is_of_then and self._is_history(time_us)):
            self._dropped += 1
            log.debug("stale tick", task_id=self.request.id, at=at, dropped=self._dropped)
            return True
        return False

    def jump_ahead(self) -> dict[str, Any] | None:
        """The arguments of the newest tick on the queue, if so many come that none was marked for a second.

        While they come faster than they can be dropped, each would be stale, and nothing ever marked.
        """
        if time.monotonic() - self._marked_s < BEHIND_MAX_S:
            return None
        newest = self._queued.newest(self.request.delivery_info["routing_key"])
        return None if newest is None or self._is_history(newest.time_us) else newest.arguments

    def note_marked(self) -> None:
        """Older ticks that wait behind the one that has just been marked are stale now."""
        self._marked_s = time.monotonic()
        if not self.request.called_directly:
            self._queued.overtake()

    def pass_on(self, tick: Tick) -> None:
        """Send `tick` to the other devices, if this message came to the first of several for all of them."""
        for queue in other_queues(self):
            try:
                self._send(queue, tick)
            except (OperationalError, Unavailable) as problem:
                self._pass_on_failures.failed(problem)
            else:
                self._pass_on_failures.worked()

    @cached_property
    def _queued(self) -> QueuedTicks:
        return QueuedTicks(self.app.settings, self.name)

    def _is_overtaken(self, time_us: float) -> bool:
        queue = self.request.delivery_info["routing_key"]
        return self._queued.is_stale(self.request.id, queue, time_us)

    def _is_history(self, time_us: float) -> bool:
        """Whether newer marks stand."""
        return self.app.services.marking.has_newer(time_us)

    def _waited(self) -> bool:
        """Whether there was a book to wait for; it is built now, or is not to be had."""
        keeper = self.app.book_keeper
        if keeper is None or keeper.wait_tried(0):
            return False
        deadline_s = time.monotonic() + self.app.settings.visibility_timeout_s * WAIT_SHARE
        while not keeper.wait_tried(LOOK_EVERY_S):
            if self.app.stopping.is_set() or self._has_expired() or time.monotonic() >= deadline_s:
                raise Reject("the book is being built", requeue=True)
        return True

    def _has_expired(self) -> bool:
        """Then it goes back to the queue as well, to be dropped from there."""
        expires = self.request.expires
        if expires is None:
            return False
        until = datetime.fromisoformat(expires) if isinstance(expires, str) else expires
        return bool(until < datetime.now(until.tzinfo or UTC).replace(tzinfo=until.tzinfo))

    def _send(self, queue: str, tick: Tick) -> None:
        if self._queued.depth(queue) >= PASSED_ON_MAX:
            raise Unavailable(f"{PASSED_ON_MAX} ticks wait on the queue {queue}: look at its worker")
        arguments = {"prices": tick.prices, "at": tick.at, "stale": tick.stale}
        pass_on(self, queue, kwargs=arguments, kwargsrepr=f"<{len(tick.prices)} prices>")
