"""The fleet's app with a task that takes its whole process along, as one does that uses up all memory."""

from __future__ import annotations

import os
import signal

from tasks.app import app
from tasks.pool_task import WriteTask

__all__ = ["DEADLY", "app"]

DEADLY = "tasks.trades.deadly"


@app.task(base=WriteTask, name=DEADLY)
def deadly() -> None:
    """Kill the worker that runs this, all its threads with it."""
    os.kill(os.getpid(), signal.SIGKILL)
