"""One rq job per trade: a forked child for each job as it comes, and without forking.

rq worker-pool -n 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from rq import Queue

from bench.peer_tasks import records

__all__ = ["enqueue", "write"]

AT_ONCE = 200


def write(trade: dict[str, Any]) -> None:
    """Write the record of one trade; a worker has one job at a time, so there is nothing to group."""
    records.synced(trade)


def enqueue(trades: Sequence[dict[str, Any]]) -> None:
    """One job for each; tuned, in pipelines and without results."""
    with redis.Redis.from_url(records.URL) as client:
        queue = Queue(connection=client)
        if not records.IS_TUNED:
            for trade in trades:
                queue.enqueue(write, trade)
            return
        jobs = [Queue.prepare_data(write, (trade,), result_ttl=0) for trade in trades]
        for first in range(0, len(jobs), AT_ONCE):
            queue.enqueue_many(jobs[first : first + AT_ONCE])
