"""A private server that has died is started again, while its owner goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from tradepool.errors import StoreUnavailable, TradePoolError
from tradepool.logger import Logger
from tradepool.server.embedded import EmbeddedServer

__all__ = ["Revival"]

_log = Logger(__name__)

_LOOK_EVERY_S = 0.1
_ATTEMPTS_MAX = 15
_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 5.0


class Revival:
    """Watches `server` from a thread and starts it again, at the same address, when its process has ended.

    What the server had flushed it loads again; it comes back fenced, and recovery has to bring it up to
    the journal. A server that dies at once again is given growing pauses. When it has not come up in
    `_ATTEMPTS_MAX` attempts in a row, a line in the log says why, `on_failure` gets the same as an error,
    and nothing more is tried. A context manager; close it before the server is stopped.
    """

    def __init__(
        self, server: EmbeddedServer, *, on_failure: Callable[[TradePoolError], None] | None = None
    ) -> None:
        self._server = server
        self._on_failure = on_failure
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server-revival", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; a start under way is waited for. Calling it twice is fine."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        pause_s, last_start = _PAUSE_MIN_S, time.monotonic()
        while not self._closing.wait(_LOOK_EVERY_S):
            if self._server.is_running():
                continue
            # One that dies right after each start must not be started ten times a second.
            survived = time.monotonic() - last_start > _PAUSE_MAX_S
            pause_s = _PAUSE_MIN_S if survived else min(2 * pause_s, _PAUSE_MAX_S)
            _log.warning("server_died", pid=self._server.pid)
            if not self._start_again(pause_s):
                return
            last_start = time.monotonic()

    def _start_again(self, pause_s: float) -> bool:
        """Whether it is up again; False as well when that is no longer wanted."""
        problem = ""
        for _ in range(_ATTEMPTS_MAX):
            if self._closing.wait(pause_s):
                return False
            try:
                self._server.start_again()
            except (TradePoolError, OSError) as failure:
                problem = str(failure)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                continue
            _log.info("server_started_again", pid=self._server.pid)
            return True
        self._give_up(problem)
        return False

    def _give_up(self, problem: str) -> None:
        failure = StoreUnavailable(
            f"the embedded server died and does not start again: {problem}; close the pool, mend that and "
            "open it again: nothing that was acknowledged is lost"
        )
        _log.critical("server_stays_down", problem=str(failure))
        if self._on_failure is not None:
            self._on_failure(failure)
