"""The digest level: what Redis and the journal say a shard holds, compared in a few bytes.

Both sides keep the XOR of their records' digests and a count, with the outbox position they belong
to. They can be compared where the positions are equal; a shard that moves too fast for that is
compared record by record.
"""

from __future__ import annotations

from typing import NamedTuple

from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["DigestOutcome", "compare_digests"]

_ATTEMPTS_MAX = 5
_JOURNAL_WAIT_S = 30.0


class DigestOutcome(NamedTuple):
    """Shards whose digests differ, and shards that never stood still; both want a closer look."""

    different: list[int]
    restless: list[int]


def compare_digests(store: RedisStore, watermark: Watermark) -> DigestOutcome:
    """Compare every shard's digest and count with the journal's: a few round trips, however many records.

    Raises: JournalUnavailable when the journal does not catch up with Redis in time.
    """
    different: list[int] = []
    shards = list(store.keys.shards)
    for _ in range(_ATTEMPTS_MAX):
        ours = store.digests(shards)
        watermark.wait(
            {shard: our.position for shard, our in zip(shards, ours, strict=True)}, _JOURNAL_WAIT_S
        )
        moved: list[int] = []
        for shard, our, their in zip(shards, ours, store.journaled(shards), strict=True):
            if their.position != our.position:
                moved.append(shard)
            elif (their.digest, their.count) != (our.digest, our.count):
                different.append(shard)
        shards = moved
        if not shards:
            break
    return DigestOutcome(sorted(different), shards)
