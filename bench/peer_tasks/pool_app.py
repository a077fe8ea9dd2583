"""Ours: `PoolClient` to the fleet, in chunks as it comes, or with a message for each trade."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tradepool import PoolClient

__all__ = ["enqueue"]

IS_CHUNKED = os.environ.get("PEERS_CHUNKED") == "1"
_FLUSH_S = 300.0


def enqueue(trades: Sequence[dict[str, Any]]) -> None:
    """Give all trades and wait until the client knows that each is journaled.

    Raises: TimeoutError, ValueError for a trade that the fleet refused.
    """
    pace = {} if IS_CHUNKED else {"batch_max": 1, "linger_ms": 0.0}
    with PoolClient.connect(**pace) as client:  # type: ignore[arg-type]  # two options of two types
        client.add_trades(trades)
        if not client.flush(_FLUSH_S):
            raise TimeoutError(f"{client.pending()} trades are not journaled")
        if client.rejections:
            raise ValueError(client.rejections[0])
