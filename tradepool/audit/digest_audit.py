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
    """Compare every shard's digest and count with the journal's.

    Raises: JournalUnavailable when the journal does not catch up with Redis in time.
    """
    outcome = DigestOutcome([], [])
    for shard in range(store.keys.shard_count):
        is_equal = _compare(store, watermark, shard)
        if is_equal is None:
            outcome.restless.append(shard)
        elif not is_equal:
            outcome.different.append(shard)
    return outcome


def _compare(store: RedisStore, watermark: Watermark, shard: int) -> bool | None:
    """Whether both sides agree; None when there was never a moment to compare them."""
    for _ in range(_ATTEMPTS_MAX):
        ours = store.digest(shard)
        watermark.wait({shard: ours.position}, _JOURNAL_WAIT_S)
        theirs = store.journaled(shard)
        if theirs.position == ours.position:
            return (theirs.digest, theirs.count) == (ours.digest, ours.count)
    return None
