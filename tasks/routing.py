"""Which queue each task travels on.

Every queue is named with its exchange and routing key, all three the same word: a producer in another
language, or one without this package, needs to know nothing else.
"""

from __future__ import annotations

from tradepool import wire
from tradepool.broker import queue_named

__all__ = ["DEAD_QUEUE", "TASK_QUEUES", "TASK_ROUTES"]

TASK_QUEUES = tuple(queue_named(name) for name in wire.QUEUES)
"""What a worker consumes: all of them, or those of its `-Q`."""

DEAD_QUEUE = queue_named(wire.QUEUE_DEAD)
"""Parked messages. Not among the task queues: a worker without `-Q` would consume and drop them."""

TASK_ROUTES = {
    f"tasks.{module}.*": {"queue": queue, "exchange": queue, "routing_key": queue}
    for module, queue in (
        ("trades", wire.QUEUE_TRADES),
        ("tokens", wire.QUEUE_TOKENS),
        ("audit", wire.QUEUE_AUDIT),
        ("pnl", wire.QUEUE_GPU),
        ("files", wire.QUEUE_FILES),
    )
}
