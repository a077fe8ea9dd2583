"""One huey task per trade.

huey_consumer bench.peer_tasks.huey_app.huey -k thread -w 4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huey import RedisHuey  # type: ignore[import-untyped]  # it ships no types

from bench.peer_tasks import records

__all__ = ["enqueue", "huey"]

huey = RedisHuey("peer", url=records.URL, results=not records.IS_TUNED)


@huey.task()  # type: ignore[untyped-decorator]  # huey ships no types
def write(trade: dict[str, Any]) -> None:
    """Write the record of one trade."""
    (records.grouped if records.IS_TUNED else records.synced)(trade)


def enqueue(trades: Sequence[dict[str, Any]]) -> None:
    """One task for each."""
    for trade in trades:
        write(trade)
