"""How many shards a store was made with: with another number, trades are looked for in the wrong ones."""

from __future__ import annotations

from typing import Any

from tradepool.errors import Misconfigured
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["SHARD_COUNT_FIELD", "check_shard_count"]

SHARD_COUNT_FIELD = "shard_count"
"""Field of `Keys.meta`: the shard count that the store was created with."""


def check_shard_count(client: Client, shard_count: int) -> None:
    """Make sure that the store has `shard_count` shards; one that no recovery has begun yet may have any.

    Raises: Misconfigured, StoreUnavailable.
    """
    with translated():
        stored: Any = client.hget(Keys.meta, SHARD_COUNT_FIELD)
    if stored is not None and int(stored) != shard_count:
        raise Misconfigured(
            f"the store was made with {int(stored)} shards, the settings say {shard_count}; "
            f"set TRADEPOOL_SHARD_COUNT={int(stored)}"
        )
