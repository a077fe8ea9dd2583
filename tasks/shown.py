"""What others see of a task, in the log, in Flower and elsewhere: counts and ids, no payload, no answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from inspect import signature
from typing import Any

import structlog
from celery import Task, signals
from celery.worker.request import Request

__all__ = ["QuietRequest", "about", "name_tasks"]

_IDS = ("trade_id", "user_id", "command_id", "reservation_id", "run_id")
_BOUND = (*_IDS, "commands", "task", "task_id")


class QuietRequest(Request):
    """A message whose arguments are shown as counts and ids, whoever has sent it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._argsrepr = _text(about(self.task, self._args, self._kwargs))
        self._kwargsrepr = "{}"

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - Celery's signature
        """As `celery inspect` and Flower ask for it; never the arguments themselves."""
        told: dict[str, Any] = super().info(safe=True)
        return told

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Tell Flower and whoever else listens: of a failure its kind, and nothing of an answer."""
        for wordy in ("result", "traceback"):
            fields.pop(wordy, None)
        if "exception" in fields:
            # Its text may quote what was refused.
            fields["exception"] = str(fields["exception"]).partition("(")[0]
        super().send_event(type, **fields)


def about(task: Task, args: Any, kwargs: Any) -> dict[str, str | int]:
    """The ids among a task's arguments; of several commands only how many there are."""
    given = {**dict(zip(_parameters(task), _several(args), strict=False)), **_named(kwargs)}
    found: dict[str, str | int] = {}
    for value in [given, *given.values()]:
        if isinstance(value, Mapping):
            found |= dict(_ids(value))
        elif isinstance(value, list):
            found["commands"] = len(value)
            if len(value) == 1:
                only = _named(value[0])
                found |= {**dict(_ids(_named(only.get("trade")))), **dict(_ids(only))}
    return found


def _ids(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((name, value[name]) for name in _IDS if isinstance(value.get(name), str))


def _several(args: Any) -> Sequence[Any]:
    return args if isinstance(args, list | tuple) else ()


def _named(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@cache
def _parameters(task: Task) -> tuple[str, ...]:
    """The names of a task's arguments."""
    return tuple(signature(task.run).parameters)


def _text(told: Mapping[str, object]) -> str:
    return f"<{', '.join(f'{name}={value}' for name, value in told.items())}>"


def name_tasks() -> None:
    """Have every line that is logged within a task name it, and what it is about."""
    signals.task_prerun.connect(_bind, weak=False)
    signals.task_postrun.connect(_unbind, weak=False)


def _bind(task: Task, task_id: str, args: Any, kwargs: Any, **_: object) -> None:
    structlog.contextvars.bind_contextvars(**about(task, args, kwargs), task=task.name, task_id=task_id)


def _unbind(**_: object) -> None:
    structlog.contextvars.unbind_contextvars(*_BOUND)
