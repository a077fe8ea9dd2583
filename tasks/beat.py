"""The clock: RedBeat, whose messages tell which tick they are of."""

from __future__ import annotations

import math
import secrets
import time
from collections import defaultdict
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any

from celery.schedules import crontab
from redbeat import RedBeatScheduler
from redbeat.schedulers import RedBeatConfig, RedBeatSchedulerEntry, RetryingConnection
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import LockError, RedisError
from redis.exceptions import TimeoutError as NoAnswer

from tasks.doubled_ticks import tick_header
from tasks.queued_ticks import QueuedTicks
from tasks.routing import TASK_ROUTES
from tradepool import wire
from tradepool.errors import Misconfigured, Unavailable
from tradepool.logger import CauseLog, Logger
from tradepool.store.address import broker_address, broker_name
from tradepool.store.tick_guard import Tick
from tradepool.store.translation import causes, of_redis

__all__ = ["TICKS_WAITING_MAX", "TickScheduler", "due_at"]

log = Logger(__name__)

TICKS_WAITING_MAX = 100
"""Messages on a queue beyond which the clock sends no more ticks there: nobody takes them."""
TICKS_WAITING_MAX_SHARED = 1000
"""The same for a queue that also carries what bots send."""
SET_BACK_S = 1.0
"""From how far on an entry that was last run at a time to come means that the clock was set back."""
RECONNECT_PAUSE_MAX_S = 5.0
KEPT_LIFETIMES = 2
"""How long a tick is remembered, in lifetimes of its messages: of two of one tick the second may be sent
as late as the first expires."""
LIFETIME_S = 3600.0
"""Of a message of an entry that has no `expires`."""

_URL_NAME = "redbeat_redis_url"
_SHARED_QUEUES = (wire.QUEUE_TRADES, wire.QUEUE_TOKENS)

# RedBeat has no setting for it; its half a minute would be a minute without a tick after a long outage.
RetryingConnection.RETRY_MAX_WAIT = RECONNECT_PAUSE_MAX_S


class TickScheduler(RedBeatScheduler):
    """RedBeat whose messages name their tick: the entry, and when it was due.

    Should two beats ever send a tick, both messages are one task to Flower and to the logs, and workers
    run one of them (`tasks.doubled_ticks`). A beat that has lost its lock ends; one whose broker is away
    waits.
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        # RedBeat takes over the configuration that it finds here.
        app.redbeat_conf = _ClockConfig(app)
        super().__init__(app, **kwargs)
        self._unsent: defaultdict[str, CauseLog] = defaultdict(partial(CauseLog, log, "ticks are not sent"))
        """By queue."""
        self._broker = CauseLog(log, "the clock stands still")
        self._ahead_s = -math.inf
        """How far the wall clock was ahead of the monotonic one at the last tick."""

    def tick(self, **kwargs: Any) -> float:
        """Send what is due; seconds until the next look. Raises: SystemExit when another beat leads."""
        if self.lock_key and self.lock is None:
            # Celery keeps to itself what acquiring it has raised.
            log.error("the clock's lock cannot be had; this beat ends")
            raise SystemExit
        try:
            self._notice_setting_back()
            pause_s = float(super().tick(**kwargs))
        except LockError as lost:
            log.warning("another beat may lead now; this one ends, to wait for its turn")
            raise SystemExit from lost
        except (ConnectionLost, NoAnswer) as problem:
            self._broker.failed(problem)
            return float(self.max_interval)
        self._broker.worked()
        return pause_s

    def close(self) -> None:
        """Give the lock back where the server can be told; else it runs out by itself.

        A beat that is asked to end comes by here, in its handler of the signal: an error would be taken for
        one of the tick that the signal has interrupted, and the beat would go on.
        """
        try:
            super().close()
        except RedisError as problem:
            log.warning("the clock's lock is left to run out", problem=f"{type(problem).__name__}: {problem}")
            self.lock = None

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Send the entry's task under the id of its tick; None where it is left out, or cannot be sent."""
        queue = _queue_of(entry.task)
        if self._is_full(queue):
            if advance:
                self.reserve(entry)
            return None
        tick = _tick(entry)
        headers = {**entry.options.get("headers", {}), **tick_header(tick)}
        entry.options = {**entry.options, "task_id": f"{tick.entry}-{tick.due_ms}", "headers": headers}
        try:
            sent = super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        except Exception as error:  # noqa: BLE001 - RedBeat would print its stack at each tick
            self._unsent[queue].failed(self._reason(error), entry=entry.name)
            return None
        self._unsent[queue].worked()
        return sent

    def _notice_setting_back(self) -> None:
        """Have entries go on that were last run at a time to come, or they would be silent until then.

        Looked at when the wall clock falls back behind the monotonic one, and at the first tick, for the
        clock of the beat that led before may have been ahead.
        """
        before_s, self._ahead_s = self._ahead_s, time.time() - time.monotonic()
        if math.isfinite(before_s) and before_s - self._ahead_s < SET_BACK_S:
            return
        for name in self.app.redbeat_conf.schedule:
            entry = self.Entry.from_key(self.Entry.generate_key(self.app, name), app=self.app)
            now = self.app.now()
            if entry.last_run_at is not None and entry.last_run_at > now + timedelta(seconds=SET_BACK_S):
                log.warning("the clock was set back", entry=name, last_run_at=entry.last_run_at.isoformat())
                entry.reschedule(now)

    def _is_full(self, queue: str) -> bool:
        """Whether so many messages wait on `queue` that its workers must be away.

        An expired message lies on the broker until a worker takes it: without one they would fill it.
        """
        most = TICKS_WAITING_MAX_SHARED if queue in _SHARED_QUEUES else TICKS_WAITING_MAX
        try:
            waiting = self._queues.depth(queue)
        except (Unavailable, Misconfigured):
            return False
        if waiting < most:
            return False
        problem = Unavailable(f"{most} messages wait on the queue {queue}: start its worker")
        self._unsent[queue].failed(problem)
        return True

    def _reason(self, error: BaseException) -> BaseException:
        """What a server has answered, in our words, or else `error`."""
        answer = next((cause for cause in causes(error) if isinstance(cause, RedisError)), None)
        return error if answer is None else of_redis(answer, broker_name(self.app.settings)) or error

    @cached_property
    def _queues(self) -> QueuedTicks:
        return QueuedTicks(self.app.settings, "")


def due_at(entry: RedBeatSchedulerEntry) -> datetime:
    """When the tick that `entry` is to send now was due: by the schedule, from its last run on.

    So it is the same for each beat that has seen the same last run, and later after each run. (RedBeat's
    own property tells the present for whatever is overdue, which a tick always is by a little.)
    """
    if entry.last_run_at is None:
        return entry.default_now()  # type: ignore[no-any-return]
    if isinstance(entry.schedule, crontab):
        start, until_due, _ = entry.schedule.remaining_delta(entry.last_run_at)
        return start + until_due  # type: ignore[no-any-return]
    return entry.last_run_at + entry.schedule.run_every  # type: ignore[no-any-return]


def _tick(entry: RedBeatSchedulerEntry) -> Tick:
    lifetime_s = entry.options.get("expires")
    if not isinstance(lifetime_s, int | float):
        lifetime_s = LIFETIME_S
    return Tick(
        entry=entry.name,
        due_ms=round(due_at(entry).timestamp() * 1000),
        token=secrets.token_hex(8),
        kept_ms=round(KEPT_LIFETIMES * lifetime_s * 1000),
    )


def _queue_of(task: str) -> str:
    module = task.rpartition(".")[0]
    return TASK_ROUTES.get(f"{module}.*", {}).get("queue", wire.QUEUE_TRADES)


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
