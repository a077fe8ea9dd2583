"""The journal's owner as a process of its own: what the files worker of a fleet is."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import traceback
from types import SimpleNamespace

from tests.faults.simulator.disk import Disk
from tradepool import clock, wiring
from tradepool.errors import Misconfigured, TradePoolError, Unavailable
from tradepool.journaling.service import JournalService
from tradepool.logger import Logger
from tradepool.settings import Settings

__all__ = ["STOPPED", "keep_journal"]

STOPPED = 71
"""Exit status after the journal has stopped by itself: Corrupt, or another writer in its place."""

_RETRY_S = 0.02
_log = Logger(__name__)


def keep_journal(settings: Settings, disk: Disk, orders: int) -> int:
    """Journal until the line `close` comes from `orders`; any other line names a service to call meanwhile.

    What passes by itself is waited for; what does not ends the process with `STOPPED`.
    """
    disk.install()
    threading.excepthook = _thread_died
    # The module reads the time through the module `time`, whoever imported what from it.
    clock.time = SimpleNamespace(time_ns=lambda: time.time_ns() + disk.clock_step_ns)  # type: ignore[assignment]
    while True:
        try:
            return _keep(settings, orders)
        except Unavailable as problem:
            _log.warning("journal_cannot_open", problem=str(problem))
            select.select([], [], [], _RETRY_S)
        except (TradePoolError, AssertionError):
            _log.exception("journal_stopped")
            return STOPPED


def _keep(settings: Settings, orders: int) -> int:
    with contextlib.closing(wiring.connect(settings)) as services:
        service = JournalService(settings, services.client, on_failure=_give_up)
        service.start()
        while (order := _next(orders)) != "close":
            try:
                getattr(services, order)(service.journal)
            except (Unavailable, Misconfigured) as problem:
                _log.warning("order_failed", order=order, problem=str(problem))
        service.close()
    return 0


def _next(orders: int) -> str:
    """One line at a time, so that an order that comes while another is carried out is not swallowed."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(orders, 1)
    return line.decode().strip()


def _thread_died(died: threading.ExceptHookArgs) -> None:
    """No thread of the journal's owner may end by an error that nobody expected."""
    traceback.print_exception(died.exc_value)
    os._exit(STOPPED)


def _give_up(problem: TradePoolError) -> None:
    _log.critical("journal_gave_up", problem=f"{type(problem).__name__}: {problem}")
    os._exit(STOPPED)
