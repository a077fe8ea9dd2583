"""Which queue each task travels on.

Every queue is named with its exchange and routing key, all three the same word: a producer in another
language, or one without this package, needs to know nothing else.
"""

from __future__ import annotations

from kombu import Queue

from tradepool import wire
from tradepool.broker import queue_named

__all__ = ["DEAD_QUEUE", "TASK_ROUTES", "task_queues"]

DEAD_QUEUE = queue_named(wire.QUEUE_DEAD)
"""Parked messages. Not among the task queues: a worker without `-Q` would consume and drop them."""

TASK_ROUTES = {
    # The queue alone: it brings its exchange and key along, and a caller may still name another one.
    f"tasks.{module}.*": {"queue": queue}
    for module, queue in (
        ("trades", wire.QUEUE_TRADES),
        ("tokens", wire.QUEUE_TOKENS),
        ("audit", wire.QUEUE_AUDIT),
        ("pnl", wire.QUEUE_GPU),
        ("files", wire.QUEUE_FILES),
    )
}


def task_queues(devices: int) -> tuple[Queue, ...]:
    """What a worker consumes: all of them, or those of its `-Q`; with a queue for each of `devices`."""
    return tuple(map(queue_named, dict.fromkeys((*wire.QUEUES, *wire.device_queues(devices)))))
