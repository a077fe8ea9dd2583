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

    Positions are what commits in `generation` answered, or `RedisStore.positions_in` that generation.

    A server that lost its newest commits goes on after the journal's positions: the watermark then passes
    the place of a commit that is gone. Nobody commits on it before a recovery, and every recovery begins
    another generation before it writes. So a watermark beyond the place of a commit, heard with the commit's
    own generation behind it, was moved by that commit. Where another generation was heard the server is
    asked: it may have been heard before the commit, maybe of another pool, and is not believed then.

    Raises: JournalUnavailable when that takes longer than `wait_s` or the server was recovered since;
    Fenced, StoreUnavailable.
    """
    if (heard := watermark.wait(positions, wait_s)) == generation:
        return
    store.check_generation(generation)
    watermark.forget(heard)
    if watermark.wait(positions, wait_s) != generation:
        # Nobody has to be heard of shards in which nothing was ever written.
        store.check_generation(generation)
