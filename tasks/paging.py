"""The task that tells whoever is on call of new critical findings."""

from __future__ import annotations

from typing import Any

from tasks.app import app
from tasks.pool_task import PoolTask
from tradepool import wire
from tradepool.errors import Unavailable

__all__ = ["PageTask", "page"]

ATTEMPTS_MAX = 9
BACKOFF_S = 5
BACKOFF_MAX_S = 300
"""Between two attempts; well below the time after which the message would go to another worker."""


class PageTask(PoolTask):
    """A task that is tried again for a quarter of an hour or so, and whose end without success is told."""

    autoretry_for = (Unavailable,)
    max_retries = ATTEMPTS_MAX - 1
    retry_backoff = BACKOFF_S
    retry_backoff_max = BACKOFF_MAX_S
    # Anything up to the pause: many pages of one fault must not all come back at once.
    retry_jitter = True

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Have it known that nobody was told."""
        app.services.reports.give_up(str(next(iter([*args, *kwargs.values()]), "")), exc)


@app.task(base=PageTask, name=wire.PAGE_AUDIT)
def page(run_id: str) -> None:
    """Tell of the audit's new critical findings; the webhook is this worker's."""
    app.services.reports.deliver(run_id)
