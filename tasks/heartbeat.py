"""The boot step by which a worker tells that it lives: whoever watches need not ask all workers."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from celery import bootsteps

from tradepool.clock import now_us
from tradepool.errors import TradePoolError
from tradepool.logger import CauseLog, Logger
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.vitals import BEAT_EVERY_S, Vitals, worker_text

__all__ = ["Heartbeat"]

log = Logger(__name__)

STOP_TIMEOUT_S = 2.0


class Heartbeat(bootsteps.StartStopStep):
    """Beats in the store every `BEAT_EVERY_S`, under the names of the worker and its queues, until it stops.

    From a thread of its own: a worker whose event loop has stopped is the watchdog's business. While the
    server is away it tries again, and says so once.
    """

    # A forked child must not beat for its parent.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._app = worker.app
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self, worker: Any) -> None:
        """Begin to beat."""
        self._worker = worker_text(worker.app.amqp.queues.consume_from, worker.hostname)
        self._thread.start()

    def stop(self, _worker: Any) -> None:
        """Take this worker out of those that are missed when they fall silent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def terminate(self, worker: Any) -> None:
        """A cold stop is a stop too."""
        self.stop(worker)

    def _run(self) -> None:
        failures = CauseLog(log, "the worker's beat is not heard")
        vitals: Vitals | None = None
        while True:
            try:
                vitals = vitals or Vitals(connect(self._app.settings), Keys(self._app.settings.shard_count))
                vitals.beat(self._worker, now_us())
                failures.worked()
            except TradePoolError as problem:
                failures.failed(problem)
            if self._stop.wait(BEAT_EVERY_S):
                break
        with contextlib.suppress(TradePoolError):
            if vitals is not None:
                vitals.leave(self._worker)
