"""One dramatiq message per trade: with the broker as it comes, and with nothing but what acknowledging needs.

dramatiq bench.peer_tasks.dramatiq_app
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

from bench.peer_tasks import records

__all__ = ["broker", "enqueue"]

_options: dict[str, Any] = {"middleware": [Retries()]} if records.IS_TUNED else {}
broker = RedisBroker(url=records.URL, **_options)  # type: ignore[no-untyped-call]  # it is half typed
dramatiq.set_broker(broker)


@dramatiq.actor
def write(trade: dict[str, Any]) -> None:
    """Write the record of one trade."""
    (records.grouped if records.IS_TUNED else records.synced)(trade)


def enqueue(trades: Sequence[dict[str, Any]]) -> None:
    """One message for each."""
    for trade in trades:
        write.send(trade)
