"""How a program writes its log: one event a line, as JSON or to be read, without secrets.

A library leaves that to whoever uses it; this is for our own programs. Lines of other libraries (Celery,
kombu, RedBeat) come the same way.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LogFormat", "configure_log", "without_secrets"]

LogFormat = Literal["auto", "json", "text"]
"""`auto`: text where somebody watches (a terminal), JSON otherwise."""

OURS = ("tradepool", "tasks")
_SECRET_CHARS_MIN = 4
"""A shorter secret would be found everywhere, and is none."""
_HIDDEN = "***"
# To the last @ before a blank or a quote: a password may hold anything else; too much hidden does less harm.
_IN_URL = re.compile(r"""(\b[a-z][a-z0-9+.-]*://[^\s:/@"']*:)[^\s"']*(?=@)""", re.IGNORECASE)
_IN_QUERY = re.compile(r"""([?&](?:password|token|secret|key)=)[^\s&"']+""", re.IGNORECASE)


def configure_log(
    form: LogFormat, level: str, *, others: int = logging.WARNING, secrets: Iterable[str] = (), file: str = ""
) -> None:
    """Have this process write its log to stderr, or to `file`.

    Our own lines are written from `level` on (`debug`, `info`, …), those of libraries from `others` on, which
    is a level of `logging`. What is in `secrets` is hidden wherever it comes from, and passwords in URLs are.
    """
    handler = logging.FileHandler(file) if file else logging.StreamHandler()
    is_json = form == "json" or (form == "auto" and (bool(file) or not sys.stderr.isatty()))
    handler.setFormatter(_Formatter(is_json=is_json, secrets=tuple(secrets)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(others)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_noting(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with the passwords of its URLs hidden, and each of `secrets`."""
    for form in _all_forms(tuple(secrets)):
        text = text.replace(form, _HIDDEN)
    return _IN_QUERY.sub(rf"\1{_HIDDEN}", _IN_URL.sub(rf"\1{_HIDDEN}", text))


@cache
def _all_forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Every form in which a line may quote one of them, the longest first: one may begin with another."""
    found = {form for secret in secrets if len(secret) >= _SECRET_CHARS_MIN for form in _forms(secret)}
    return tuple(sorted(found, key=len, reverse=True))


def _forms(secret: str) -> Iterator[str]:
    """As it is, in a URL, as Python shows it and shows such a text again; and each of these within JSON."""
    for form in (secret, quote(secret, safe=""), repr(secret)[1:-1], repr(repr(secret))[2:-2]):
        yield form
        yield json.dumps(form)[1:-1]


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders a line, and hides secrets last: also those in a traceback or in another library's words."""

    def __init__(self, *, is_json: bool, secrets: tuple[str, ...]) -> None:
        renderers: list[Processor] = [self.remove_processors_meta]
        if is_json:
            renderers += [
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ]
        else:
            # The default shows the variables of each frame, trades and passwords among them.
            plain = structlog.dev.plain_traceback
            renderers.append(
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
            )
        super().__init__(processors=renderers, foreign_pre_chain=[_of_celery, *_noting()])
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record), self._secrets)


def _noting() -> list[Processor]:
    """What every line tells beside its own fields."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _of_celery(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The task that a line of Celery's is about, as our own lines name it."""
    data: Any = getattr(event.get("_record"), "data", None)
    if isinstance(data, Mapping) and "id" in data:
        event.update(task=data.get("name"), task_id=data["id"])
    return event
