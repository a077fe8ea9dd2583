"""The Celery app of the fleet, and the pool that its tasks share."""

from __future__ import annotations

import gc
import threading
import warnings
from functools import cached_property
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning

from tasks import reliability, shown
from tasks.book_step import BookStep
from tasks.config import celery_settings
from tasks.events import EventBatches
from tasks.heartbeat import Heartbeat
from tasks.journal_step import JournalStep
from tasks.transport import choose_transport
from tradepool import wire
from tradepool.files.journal import Journal
from tradepool.marking.keeper import BookKeeper
from tradepool.pool import TradePool
from tradepool.program_log import configure_log
from tradepool.settings import Settings, load_settings
from tradepool.store.address import known_secrets
from tradepool.wiring import Services, connect

__all__ = ["GARBAGE_EVERY", "PoolApp", "app"]

GARBAGE_EVERY = 10_000
"""New objects after which a worker's process looks for garbage; Python's own 700 cost it a sixth of its time.

A chunk's commands are thousands of objects that live for as long as the chunk, and none is in a cycle: each
look would go through all of those under way, and free none of them.
"""
TASK_MODULES = ["tasks.trades", "tasks.tokens", "tasks.pnl", "tasks.audit", "tasks.paging", "tasks.files"]


class PoolApp(Celery):
    """A Celery app whose tasks reach the pool as `app.trade_pool`.

    (`Celery.pool` is taken: it is the app's pool of broker connections.)
    """

    task_cls = "tasks.pool_task:PoolTask"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stopping = threading.Event()
        """Set when this worker shuts down; waits inside tasks end with it."""
        self.journal: Journal | None = None
        """The pool's journal, in the worker that owns it."""
        self.book_keeper: BookKeeper | None = None
        """The thread that follows the pool, in a gpu worker."""
        self._services: Services | None = None
        self._services_lock = threading.Lock()

    @cached_property
    def settings(self) -> Settings:
        """The pool's settings, from the environment. Raises: Misconfigured."""
        return load_settings()

    @property
    def services(self) -> Services:
        """The parts of this process's pool, connected by the first task that asks.

        Built late on purpose: a prefork child must not inherit its parent's sockets and threads.

        Raises: StoreUnavailable, Misconfigured.
        """
        with self._services_lock:
            if self._services is None:
                self._services = connect(self.settings)
            return self._services

    @property
    def trade_pool(self) -> TradePool:
        """This process's pool. Raises like `services`."""
        return TradePool(self.services)

    def disconnect_pool(self) -> None:
        """Let go of the pool's connections and threads; a later task would connect again."""
        with self._services_lock:
            services, self._services = self._services, None
        if services is not None:
            services.close()


def _create_app() -> PoolApp:
    wire.register_decoder()
    reliability.guard_restarts()
    reliability.guard_acknowledgements()
    reliability.guard_messages()
    shown.name_tasks()
    created = PoolApp("tradepool", include=TASK_MODULES)
    created.add_defaults(lambda: _configuration(created.settings))
    created.steps["worker"] |= {JournalStep, BookStep, Heartbeat, reliability.QuietWatchdog}
    created.steps["consumer"].add(EventBatches)
    return created


def _configuration(settings: Settings) -> dict[str, Any]:
    choose_transport(settings.broker_transport)
    return celery_settings(settings)


app = _create_app()


@signals.setup_logging.connect(weak=False)
def _configure_log(loglevel: int, logfile: str | None = None, **_: object) -> None:
    """Of a worker or a beat, in place of Celery's own; `loglevel` is that of the command line."""
    # At each lost connection, about a choice that `tasks.config` has made.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    settings = app.settings
    configure_log(
        settings.log_format,
        settings.log_level,
        others=loglevel,
        secrets=known_secrets(settings),
        file=logfile or "",
    )


@signals.worker_init.connect(weak=False)
def _look_for_garbage_less_often(**_: object) -> None:
    """Of a worker, and of the children that it forks later."""
    gc.set_threshold(GARBAGE_EVERY)


@signals.worker_shutting_down.connect(weak=False)
def _stop_waiting(**_: object) -> None:
    app.stopping.set()


@signals.worker_shutdown.connect(weak=False)
@signals.worker_process_shutdown.connect(weak=False)
def _disconnect_pool(**_: object) -> None:
    app.disconnect_pool()
