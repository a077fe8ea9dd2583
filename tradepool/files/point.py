"""Where a journal stands after a commit."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tradepool.files.lines import Digest, JournalEntry
from tradepool.model.positions import START_POSITION

__all__ = ["JournalPoint", "with_entries"]


class JournalPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A committed state of the journal: everything before `offset` (bytes) counts, nothing after it.

    `seq` is the number of the last entry and `crc` the chained checksum; `positions` holds the newest
    journaled outbox position of each shard that has one, `digests` the shard's records by then.
    """

    offset: int
    crc: int
    seq: int = 0
    positions: dict[int, str] = {}
    digests: dict[int, Digest] = {}

    def position(self, shard: int) -> str:
        """The shard's newest journaled outbox position; `START_POSITION` before its first."""
        return self.positions.get(shard, START_POSITION)

    def digest(self, shard: int) -> Digest:
        """The digest of the shard's records."""
        return self.digests.get(shard, Digest())


def with_entries(digests: dict[int, Digest], entries: Iterable[JournalEntry]) -> dict[int, Digest]:
    """`digests` after `entries` moved them; the given dict stays as it is."""
    moved: dict[int, list[int]] = {}
    for entry in entries:
        change = moved.setdefault(entry.shard, [0, 0])
        change[0] ^= int(entry.digest, 16)
        if entry.previous:
            change[0] ^= int(entry.previous, 16)
        else:
            change[1] += 1
    changed = {shard: digests.get(shard, Digest()).moved(*change) for shard, change in moved.items()}
    return {**digests, **changed}
