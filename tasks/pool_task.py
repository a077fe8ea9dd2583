"""What all tasks of the fleet have in common: the boundary at which nothing may get lost."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import OperationalError

from tasks.deaths import Deaths
from tasks.decoding import Envelope
from tasks.delivery import deliver
from tasks.doubled_ticks import TICK_HEADER, is_doubled
from tasks.parking import letter, park, reason_of
from tradepool.clock import now_us
from tradepool.errors import Contended, Misconfigured, Rejected, TradePoolError, Unavailable
from tradepool.logger import Logger

__all__ = ["PoolTask", "WriteTask"]

log = Logger(__name__)

WORKER_LOST_PAUSE_S = 1
"""A prefork child died over a message: its next run begins so much later; Celery's own pause is 3 minutes."""
WORKERS_LOST_MAX = 5
"""So many children, or whole workers, may die over one message; then it is taken for the cause."""


class PoolTask(Task):
    """A task of the fleet; its messages tell when they were sent, and are parked when they make no sense."""

    Request = "tasks.shown:QuietRequest"
    throws: tuple[type[TradePoolError], ...] = (Rejected,)
    """A refusal is an answer: Celery logs it in one line, without a traceback."""
    default_retry_delay = WORKER_LOST_PAUSE_S
    resultrepr_maxsize = 0
    """An answer, which may have balances, is its caller's: no log shows it, nor any event (`tasks.shown`)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; a message with the wrong arguments is parked before it fails.

        Raises: Reject, which returns the message to the queue when it cannot be parked; Ignore for a tick of
        the clock that another message has brought already.
        """
        if self.request.called_directly:
            return self.run(*args, **kwargs)
        if is_doubled(self.app, self.request.id, self.request.get(TICK_HEADER)):
            raise Ignore
        try:
            _signature(self).bind(*args, **kwargs)
        except TypeError as error:
            self._park_message(error, args, kwargs)
            raise
        try:
            return self.run(*args, **kwargs)
        except Rejected as refusal:
            self._park_message(refusal, args, kwargs)
            raise

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send the task with its time in the header `sent_at` (µs since 1970)."""
        headers = {"sent_at": now_us()} | (options.pop("headers", None) or {})
        return super().apply_async(args, kwargs, headers=headers, **options)

    def _park_message(self, error: Exception, args: Any, kwargs: Any) -> None:
        parked = letter(
            reason=reason_of(error),
            task=self.name,
            task_id=self.request.id,
            sent_at=self.request.get("sent_at"),
            payload={"args": args, "kwargs": kwargs},
        )
        try:
            park(self.app, [parked])
        except OperationalError as unsent:
            raise Reject(unsent, requeue=True) from unsent


class WriteTask(PoolTask):
    """A task that changes records: its message ends applied, parked, or back in the queue."""

    max_retries = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and give the message back when the pool or the broker is away.

        Raises: Reject, which returns the message to the queue.
        """
        deaths = Deaths(self.app, self.request)
        # Nothing of ours retries but Celery, when a child was lost.
        lost = max(self.request.retries, deaths.count())
        if lost > WORKERS_LOST_MAX:
            self._park_message(ChildProcessError(f"{lost} worker processes died over it"), args, kwargs)
            deaths.forget()
            return None
        try:
            return self._run_safely(args, kwargs)
        finally:
            deaths.forget()

    def _run_safely(self, args: Any, kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except (Ignore, Reject, Retry):
            raise
        except (Unavailable, Contended, Misconfigured, OperationalError) as error:
            raise Reject(error, requeue=True) from error
        except Exception as error:  # the process boundary: a failed message would be acknowledged and gone
            log.exception("task failed", task=self.name, task_id=self.request.id)
            self._park_message(error, args, kwargs)
            return None

    def apply_one(self, about: Mapping[str, Any], /, **command: Any) -> dict[str, Any]:
        """Deliver the one command of the message, with its id and time if `about` tells them; its answer."""
        return deliver(self.app, self.envelope(), [{**command, **about}])[0]

    def envelope(self, *, overtaken_since: int | None = None) -> Envelope:
        """What is known of the message that is being run."""
        return Envelope(
            task_id=self.request.id or f"direct-{uuid.uuid4().hex}",
            task_name=self.name,
            sent_at=self.request.get("sent_at"),
            overtaken_since=overtaken_since,
        )


@cache
def _signature(task: Task) -> inspect.Signature:
    return inspect.signature(task.run)
