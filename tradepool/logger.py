"""What the program says of itself. No work may end because a line of the log cannot be written."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import structlog

__all__ = ["REMIND_AFTER_S", "CauseLog", "Logger"]

REMIND_AFTER_S = 600.0
"""How often a `CauseLog` repeats a cause that lasts."""

_CAUSES_MAX = 20
"""Causes that a `CauseLog` remembers; a text that is another each time must not fill the memory."""


class Logger:
    """structlog's logger of `name`, as whoever uses this library has configured it.

    A line that cannot be written (a full disk, a closed stream) is dropped: the journal waits for room
    on the very disk that its log may be on.
    """

    def __init__(self, name: str) -> None:
        self._log: Any = structlog.get_logger(name)

    def debug(self, event: str, **fields: object) -> None:
        """Say what only somebody who looks for a fault wants to know."""
        self._say("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Say what happened in the ordinary course of things."""
        self._say("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say what went wrong and is dealt with."""
        self._say("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Say what went wrong and somebody should look at."""
        self._say("error", event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """Say what has ended."""
        self._say("critical", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """`error`, with the traceback of the error being handled."""
        self._say("exception", event, fields)

    def _say(self, level: str, event: str, fields: dict[str, object]) -> None:
        # ValueError: the stream has been closed.
        with contextlib.suppress(OSError, ValueError):
            getattr(self._log, level)(event, **fields)


class CauseLog:
    """Tells of something that fails again and again: each cause once, then rarely, and its end.

    It is an error, unless `is_warning`.
    """

    def __init__(self, log: Logger, event: str, *, is_warning: bool = False) -> None:
        self._log = log
        self._tell = log.warning if is_warning else log.error
        self._event = event
        self._told_at_s: dict[str, float] = {}
        self.cause = ""
        """Why it failed last; empty while it works. Of any thread."""

    def failed(self, problem: BaseException, **fields: object) -> None:
        """It failed; a line only if this cause was not told for a while."""
        self.cause = f"{type(problem).__name__}: {problem}"
        now_s = time.monotonic()
        if now_s - self._told_at_s.get(self.cause, -math.inf) < REMIND_AFTER_S:
            return
        if len(self._told_at_s) >= _CAUSES_MAX:
            self._told_at_s.clear()
        self._told_at_s[self.cause] = now_s
        self._tell(self._event, problem=self.cause, **fields)

    def worked(self) -> None:
        """It worked; a line only if it had failed before."""
        if self.cause:
            self._log.info("works again", after=self._event)
            self._told_at_s.clear()
        self.cause = ""
