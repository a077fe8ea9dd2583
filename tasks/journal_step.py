"""The boot step that keeps the journal in the worker of the queue `files`."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from tradepool import wire
from tradepool.errors import TradePoolError, Unavailable
from tradepool.journaling.service import JournalService
from tradepool.logger import Logger
from tradepool.store.connection import Client, connect

__all__ = ["EXIT_JOURNAL", "JournalStep"]

log = Logger(__name__)

EXIT_JOURNAL = 74
"""The exit code of a worker whose journal has ended by itself (EX_IOERR)."""
PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 5.0
CHECK_EVERY_S = 1.0


class JournalStep(bootsteps.StartStopStep):
    """Recovers the store and journals, from the start of the worker until after its last task.

    While the server or the folder is not to be had it tries again. When journaling ends by itself
    (the files contradict each other, another writer took over) the worker exits with code 74: without
    a journal nothing is acknowledged, and a supervisor or a human must see it.
    """

    # After the pool: a forked child must not hold the journal's lock.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._app = worker.app
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-step", daemon=True)

    def include_if(self, worker: Any) -> bool:
        """Only in the worker that owns the data directory."""
        return wire.QUEUE_FILES in worker.app.amqp.queues.consume_from

    def start(self, _worker: Any) -> None:
        """Begin in a thread: the server may be away, and the worker has other things to do."""
        # Not at `stop`: the pool's last tasks still wait for the journal then.
        signals.worker_shutdown.connect(self._end, weak=False)
        self._thread.start()

    def _end(self, **_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            service = self._open()
            if service is not None:
                self._watch(service)
        except TradePoolError as failure:
            _exit_worker(failure)
        except Exception as failure:  # the process boundary: a worker without its journal must not look well
            log.exception("journal step failed")
            _exit_worker(failure)

    def _open(self) -> JournalService | None:
        """The service, started; None when the worker stops first."""
        client: Client | None = None
        pause_s = PAUSE_MIN_S
        while not self._stop.is_set():
            try:
                client = client or connect(self._app.settings)
                service = JournalService(self._app.settings, client, on_failure=_exit_worker)
            except Unavailable as problem:
                log.warning("journal not available", problem=str(problem), pause_s=pause_s)
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                continue
            service.start()
            self._app.journal = service.journal
            return service
        return None

    def _watch(self, service: JournalService) -> None:
        while not self._stop.wait(CHECK_EVERY_S):
            if not service.is_alive():
                _exit_worker(RuntimeError("the journal's thread has ended"))
                return
        self._app.journal = None
        service.close()


def _exit_worker(failure: BaseException) -> None:
    """Have the worker's main thread shut down with `EXIT_JOURNAL`; of several reasons the first is told."""
    if state.should_stop != EXIT_JOURNAL:
        log.critical("no journal; the worker exits", problem=str(failure), kind=type(failure).__name__)
    state.should_stop = EXIT_JOURNAL
