"""One taskiq message per trade, through Redis streams, which it acknowledges.

taskiq worker bench.peer_tasks.taskiq_app:broker
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from taskiq_redis import RedisStreamBroker

from bench.peer_tasks import records

__all__ = ["broker", "enqueue"]

AT_ONCE = 100
CONNECTIONS = 20

# From the stream's beginning: what was sent before a worker was there is for it as well.
broker = RedisStreamBroker(url=records.URL, consumer_id="0", max_connection_pool_size=CONNECTIONS)
_file = records.AsyncGrouped() if records.IS_TUNED else None


@broker.task
async def write(trade: dict[str, Any]) -> None:
    """Write the record of one trade."""
    if _file is not None:
        await _file.append(records.line_of(trade))
    else:
        await asyncio.to_thread(records.synced, trade)


def enqueue(trades: Sequence[dict[str, Any]]) -> None:
    """One message for each; tuned, many are under way to the broker at a time."""
    asyncio.run(_enqueue(trades))


async def _enqueue(trades: Sequence[dict[str, Any]]) -> None:
    await broker.startup()
    size = AT_ONCE if records.IS_TUNED else 1
    for first in range(0, len(trades), size):
        await asyncio.gather(*(write.kiq(trade) for trade in trades[first : first + size]))
    await broker.shutdown()
