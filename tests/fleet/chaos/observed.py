"""The fleet's own Celery app, watched: what is delivered again and what turns out to be a duplicate is noted.

Each worker process appends to a file of its own in `$CHAOS_NOTES`; nothing about the app is changed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from celery import signals

from tasks.app import app
from tests.fleet.chaos.breaks import acknowledges_early

__all__ = ["app"]

_FOLDER = "CHAOS_NOTES"
_WRITES = ("tasks.trades.", "tasks.tokens.")

if acknowledges_early():
    app.conf.task_acks_late = False


@signals.task_prerun.connect(weak=False)
def _note_redelivery(task: Any, **_: Any) -> None:
    if (task.request.delivery_info or {}).get("redelivered"):
        _note("redelivered", 1)


@signals.task_postrun.connect(weak=False)
def _note_outcomes(task: Any, retval: Any, **_: Any) -> None:
    if not task.name.startswith(_WRITES):
        return
    answers = retval if isinstance(retval, list) else [retval]
    outcomes = Counter(answer.get("outcome") for answer in answers if isinstance(answer, dict))
    for outcome in ("duplicate", "stale", "later", "rejected", "failed"):
        if outcomes[outcome]:
            _note(outcome, outcomes[outcome])


def _note(what: str, count: int) -> None:
    folder = os.environ.get(_FOLDER)
    if folder:
        path = Path(folder) / f"worker-{os.getpid()}.txt"
        with path.open("ab", buffering=0) as out:
            out.write(b"%s %d\n" % (what.encode(), count))
