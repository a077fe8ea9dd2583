"""Messages over which one worker process after the other dies: they are told by runs that never end.

Celery counts the prefork children that it loses. Where a whole process goes, because the system is out of
memory, nobody is left to count, and the message comes again after each visibility timeout. So the runs of
a message that comes again are counted before they begin, and no more once one of them has ended, however.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradepool.errors import Corrupt, Misconfigured, Unavailable
from tradepool.logger import Logger
from tradepool.store.unended_runs import begin_run, end_run

if TYPE_CHECKING:
    from celery.app.task import Context

    from tasks.app import PoolApp

__all__ = ["Deaths"]

log = Logger(__name__)

KEPT_TIMEOUTS = 4
"""How long deaths are remembered, in visibility timeouts: a message comes again after one of them."""


class Deaths:
    """The processes that died over the message of `request`, as far as is known.

    Only a message that is delivered again costs anything. What ran beside the culprit in the same process is
    counted with it, and no more once it has run. While the store does not answer nobody has died.
    """

    def __init__(self, app: PoolApp, request: Context) -> None:
        self._app = app
        self._task_id = request.id or ""
        self._is_repeat = bool((request.delivery_info or {}).get("redelivered"))

    def count(self) -> int:
        """Note that the message is about to be run; how many runs of it have not ended before."""
        if not self._is_repeat:
            return 0
        kept_ms = round(KEPT_TIMEOUTS * self._app.settings.visibility_timeout_s * 1000)
        try:
            # This run makes up for the first one, which nobody has counted.
            return begin_run(self._app.services.client, self._task_id, kept_ms)
        except (Unavailable, Misconfigured, Corrupt) as problem:
            self._warn(problem)
            return 0

    def forget(self) -> None:
        """The run has ended, or the message is parked."""
        if not self._is_repeat:
            return
        try:
            end_run(self._app.services.client, self._task_id)
        except (Unavailable, Misconfigured) as problem:
            self._warn(problem)

    def _warn(self, problem: Exception) -> None:
        log.warning("cannot count the runs of a message", task_id=self._task_id, problem=str(problem))
