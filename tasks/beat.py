"""The clock: RedBeat, with ids that name the tick."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from redbeat import RedBeatScheduler
from redbeat.schedulers import RedBeatConfig

from tasks.queued_ticks import QueuedTicks
from tradepool import wire
from tradepool.errors import Misconfigured, Unavailable
from tradepool.logger import CauseLog, Logger
from tradepool.store.address import broker_address

__all__ = ["TICKS_WAITING_MAX", "TickScheduler"]

log = Logger(__name__)

TICKS_WAITING_MAX = 100
"""Messages on the gpu queue beyond which the clock sends no more ticks there: nobody takes them."""

_TICK = "tasks.pnl.mark_to_market"
_URL_NAME = "redbeat_redis_url"


class TickScheduler(RedBeatScheduler):
    """RedBeat whose messages carry the entry's name and due time as their task id.

    Should two beats ever send the same tick, both messages are one task to Flower and to the logs.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        # RedBeat takes over the configuration that it finds here.
        app.redbeat_conf = _ClockConfig(app)
        super().__init__(app, **kwargs)
        self._full_queue = CauseLog(log, "ticks are not sent")

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Send the entry's task under the id of its tick; None where it is left out."""
        if entry.task == _TICK and self._is_full():
            if advance:
                self.reserve(entry)
            return None
        due_ms = int(entry.due_at.timestamp() * 1000)
        entry.options = {**entry.options, "task_id": f"{entry.name}-{due_ms}"}
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)

    def _is_full(self) -> bool:
        """Whether so many wait on the gpu queue that its worker must be away.

        An expired message lies on the broker until a worker takes it: without one they would fill it.
        """
        try:
            waiting = self._gpu_queue.depth(wire.QUEUE_GPU)
        except (Unavailable, Misconfigured):
            return False
        if waiting < TICKS_WAITING_MAX:
            self._full_queue.worked()
            return False
        self._full_queue.failed(
            Unavailable(f"{TICKS_WAITING_MAX} messages wait on the queue gpu: start its worker")
        )
        return True

    @cached_property
    def _gpu_queue(self) -> QueuedTicks:
        return QueuedTicks(self.app.settings, _TICK)


class _ClockConfig(RedBeatConfig):
    """RedBeat's configuration, with the URL from the pool's settings instead of a setting of Celery.

    Celery would show that setting uncensored; and RedBeat's own client does not understand the form
    of a unix:// URL that the broker's setting needs.
    """

    def either_or(self, name: str, default: Any = None) -> Any:
        """The configured value of `name`."""
        if name == _URL_NAME:
            return broker_address(self.app.settings).redis_url
        return super().either_or(name, default)

    def is_key_in_conf(self, name: str) -> bool:
        """Whether `name` is configured: the URL always is, RedBeat must not fall back to the broker's."""
        return name == _URL_NAME or bool(super().is_key_in_conf(name))
