"""When a change is safe: the journal has it, and the server that took it is still the same one."""

from __future__ import annotations

from collections.abc import Mapping

from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["await_durable"]


def await_durable(
    store: RedisStore, watermark: Watermark, positions: Mapping[int, str], generation: str, wait_s: float
) -> None:
    """Wait until the journal has `positions` (shard → outbox position), and what stood there is in it.

    A server that lost its newest commits goes on after the journal's positions: the watermark then passes
    the place of a commit that is gone. Every recovery begins another generation, so `generation` is taken
    before the first of what is waited for.

    Raises: JournalUnavailable when that takes longer than `wait_s` or the server was recovered since;
    Fenced, StoreUnavailable.
    """
    watermark.wait(positions, wait_s)
    store.check_generation(generation)
