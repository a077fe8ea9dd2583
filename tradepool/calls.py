"""Calls of several callers as one batch, and the batch's results as theirs again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from typing import NamedTuple

from tradepool.deciding import Result
from tradepool.model import ids
from tradepool.model.commands import PoolCommand

__all__ = ["Call", "divided", "joined"]

TASK_ID_CHARS_MAX = 128


class Call(NamedTuple):
    """What one caller wants applied, in order."""

    commands: Sequence[PoolCommand]
    task_id: str
    """The fleet's task that it is of; empty for none."""

    @property
    def size(self) -> int:
        """How many commands it has."""
        return len(self.commands)


def joined(calls: Iterable[Call]) -> tuple[list[PoolCommand], list[str]]:
    """The commands of all calls in order, and for each the id of its task as the journal can carry it."""
    commands: list[PoolCommand] = []
    task_ids: list[str] = []
    for call in calls:
        commands += call.commands
        task_ids += repeat(_printable(call.task_id), call.size)
    return commands, task_ids


def divided(calls: Iterable[Call], results: Iterable[Result]) -> list[list[Result]]:
    """The results of each call, of those of all `calls` in order."""
    rest = iter(results)
    return [list(islice(rest, call.size)) for call in calls]


def _printable(task_id: str) -> str:
    """Whoever sends a task chooses its id."""
    return task_id if task_id.isprintable() and len(task_id) <= TASK_ID_CHARS_MAX else ids.short_id(task_id)
