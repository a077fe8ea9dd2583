"""A worker whose broker answers it with errors, a right denied or no memory left, waits and says why."""

from __future__ import annotations

import time
from typing import Any

import redis
from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError

from tradepool.logger import CauseLog, Logger
from tradepool.store.address import broker_name
from tradepool.store.translation import causes, of_redis

__all__ = ["PatientConsumer"]

log = Logger(__name__)

PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 10.0
FORGOTTEN_AFTER_S = 60.0
"""A refusal after so long without one is another incident: it is told again, and waits briefly again."""


class PatientConsumer(Consumer):
    """A consumer that starts again ever more slowly while its broker refuses it, and tells each cause once.

    Celery's own tries again at once, which is right for a broker that was restarted: its connection is lost.
    One that answers will give the same answer in the next millisecond.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pause_s = PAUSE_FIRST_S
        self._refused_at_s = 0.0
        self._causes = CauseLog(log, "the broker refuses this worker")

    def start(self) -> None:
        """Consume until the worker stops; a refusal that kombu has wrapped is one like all others."""
        while True:
            try:
                super().start()
            except OperationalError as error:
                if (answer := _answer_in(error)) is None:
                    raise
                self._wait_after(answer)
                self.on_close()
                self.blueprint.restart(self)
            else:
                return

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery's line for a lost connection; ours, and a pause, for an answer."""
        answer = _answer_in(exc)
        if answer is None:
            super().on_connection_error_after_connected(exc)
        else:
            self._wait_after(answer)

    def _wait_after(self, answer: redis.ResponseError) -> None:
        """Return after a pause, or as soon as the worker is asked to stop."""
        now_s = time.monotonic()
        if now_s - self._refused_at_s > FORGOTTEN_AFTER_S:
            self._causes = CauseLog(log, "the broker refuses this worker")
            self._pause_s = PAUSE_FIRST_S
        self._causes.failed(of_redis(answer, broker_name(self.app.settings)) or answer)
        self.app.stopping.wait(self._pause_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        self._refused_at_s = time.monotonic()


def _answer_in(error: BaseException) -> redis.ResponseError | None:
    """The server's answer behind an error; None where there was none, as when the connection is lost."""
    return next((cause for cause in causes(error) if isinstance(cause, redis.ResponseError)), None)
