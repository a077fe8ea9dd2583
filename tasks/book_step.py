"""The boot step that keeps the book of open trades ready in the workers of the gpu queues."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as ForkingPool

from tradepool import wire
from tradepool.logger import Logger
from tradepool.marking.keeper import BookKeeper

__all__ = ["BookStep"]

log = Logger(__name__)


class BookStep(bootsteps.StartStopStep):
    """Builds the book and chooses what marks it while the worker starts, then follows the pool.

    All of it happens in a thread of the process that marks: the server may be away, a large book takes
    its time, and CUDA must not be touched by a process that forks. Under a pool that forks, each child
    builds a book of its own at its first tick.
    """

    requires = ("celery.worker.components:Pool",)

    def include_if(self, worker: Any) -> bool:
        """Only in a worker that marks, in this process."""
        devices = wire.device_queues(worker.app.settings.pnl_devices)
        if not any(queue in worker.app.amqp.queues.consume_from for queue in devices):
            return False
        if issubclass(worker.pool_cls, ForkingPool):
            log.warning("each child process will keep a book of its own; start the gpu worker with -P solo")
            return False
        return True

    def create(self, worker: Any) -> BookKeeper:
        """What the worker starts and stops with this step."""
        app = worker.app
        app.book_keeper = BookKeeper(
            lambda: app.services.marking, save_every_s=app.settings.book_save_every_s
        )
        return app.book_keeper  # type: ignore[no-any-return]
