"""Messages that no task can be made of are parked, where Celery's consumer drops them or ends.

None of them is written to the log, as Celery's own lines would: they may hold a trade.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import signals
from kombu.exceptions import OperationalError

from tasks.broker_refusals import PatientConsumer
from tasks.parking import letter, park, reason_of
from tradepool.logger import Logger

__all__ = ["ParkingConsumer"]

log = Logger(__name__)

_NAMING_HEADERS = ("id", "task", "root_id")


class ParkingConsumer(PatientConsumer):
    """A consumer that parks what it cannot read, where Celery's would drop it or end."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Celery's handler of messages; what it fails on for the message's own sake is parked."""
        handle = super().create_task_handler(*args, **kwargs)
        # kombu counts KeyError among the connection errors; here it is a header that is missing.
        lost = {*self.connection_errors, *self.channel_errors, OperationalError} - {KeyError}

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except (MemoryError, *lost):
                raise
            except Exception as error:  # the process boundary: one bad message must not end the worker
                if message.acknowledged:
                    log.exception("message failed after it was seen to")
                else:
                    self.on_invalid_task(None, message, error)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Park a message whose body is not JSON, then acknowledge it."""
        if self._parked(message, exc):
            message.ack()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Park a message that is no task, then drop it from the queue."""
        del body
        if self._parked(message, ValueError("not a Celery task message")):
            self._drop(message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a message for a task that this fleet does not have, then drop it from the queue."""
        if not self._parked(message, LookupError(f"no task named {exc}")):
            return
        # Celery writes to the log what it is given, and whoever waits for the task learns that there is none.
        message.headers = {name: told for name, told in message.headers.items() if name in _NAMING_HEADERS}
        try:
            super().on_unknown_task(f"{type(body).__name__}, not shown", message, exc)
        finally:
            if not message.acknowledged:  # Celery looks for the task's id first, and there may be none
                message.reject()

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a message that breaks the task protocol, then drop it from the queue."""
        del body
        if self._parked(message, exc):
            self._drop(message)

    def _drop(self, message: Any) -> None:
        """As Celery does, but without a line of its own, which has the whole message in it."""
        message.reject_log_error(logging.getLogger(__name__), self.connection_errors)

    def _parked(self, message: Any, error: Exception) -> bool:
        """Whether the letter is sent; if not, the message stays unacknowledged and comes again."""
        headers = message.headers or {}
        parked = letter(
            reason=reason_of(error),
            task=str(headers.get("task", "")),
            task_id=str(headers.get("id", "")),
            payload={"headers": headers, "body": _text(message.body)},
        )
        try:
            park(self.app, [parked])
        except OperationalError:
            log.exception("cannot park an unreadable message")
            return False
        return True


@signals.task_internal_error.connect(weak=False)
def _park_broken_call(
    sender: Any, task_id: str, args: Any, kwargs: Any, exception: Exception, **_: Any
) -> None:
    """Park a message that failed before its task began (its arguments are no list or no dict)."""
    payload = {"args": args, "kwargs": kwargs}
    park(
        sender.app, [letter(reason=reason_of(exception), task=sender.name, task_id=task_id, payload=payload)]
    )


def _text(body: Any) -> str:
    return (
        bytes(body).decode("utf-8", "backslashreplace") if isinstance(body, bytes | memoryview) else str(body)
    )
