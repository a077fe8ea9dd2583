"""What the program says of itself. No work may end because a line of the log cannot be written."""

from __future__ import annotations

import contextlib
from typing import Any

import structlog

__all__ = ["CauseLog", "Logger"]


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
    """Tells of something that fails again and again: once for each cause, and when it works again."""

    def __init__(self, log: Logger, event: str) -> None:
        self._log = log
        self._event = event
        self._cause = ""

    def failed(self, problem: BaseException, **fields: object) -> None:
        """It failed; a line only if the cause is another than last time."""
        cause = f"{type(problem).__name__}: {problem}"
        if cause != self._cause:
            self._log.error(self._event, problem=cause, **fields)
        self._cause = cause

    def worked(self) -> None:
        """It worked; a line only if it had failed before."""
        if self._cause:
            self._log.info("works again", after=self._event)
        self._cause = ""
