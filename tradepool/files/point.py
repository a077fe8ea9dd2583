"""Places in the journal, and where it stands after a commit."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

import msgspec

from tradepool.files.lines import Commit, Digest, JournalLine, NewLine
from tradepool.model.positions import START_POSITION

__all__ = ["JournalPoint", "Place", "with_entries"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place between two groups, from which reading may begin.

    `offset` counts the bytes (uncompressed) of segment number `segment` before it; `crc` is the chained
    checksum and `seq` the number of the last entry there.
    """

    offset: int
    crc: int
    segment: int = 1
    seq: int = 0


class JournalPoint(Place, frozen=True, kw_only=True):
    """A committed state of the journal: everything before the place counts, nothing after it.

    `positions` holds the newest journaled outbox position of each shard that has one, `digests` the
    shard's records by then.
    """

    positions: dict[int, str] = {}
    digests: dict[int, Digest] = {}

    def position(self, shard: int) -> str:
        """The shard's newest journaled outbox position; `START_POSITION` before its first."""
        return self.positions.get(shard, START_POSITION)

    def digest(self, shard: int) -> Digest:
        """The digest of the shard's records."""
        return self.digests.get(shard, Digest())

    def after(self, place: Place, commit: Commit, entries: Iterable[JournalLine | NewLine]) -> JournalPoint:
        """The state at `place`, with which a group of `entries` and `commit` ends."""
        return JournalPoint(
            offset=place.offset,
            crc=place.crc,
            segment=place.segment,
            seq=commit.seq,
            positions={**self.positions, **commit.positions},
            digests=with_entries(self.digests, entries),
        )


def with_entries(digests: dict[int, Digest], entries: Iterable[JournalLine | NewLine]) -> dict[int, Digest]:
    """`digests` after `entries` moved them; the given dict stays as it is."""
    moved = dict(digests)
    for shard, run in groupby(entries, attrgetter("shard")):
        xor = added = 0
        for entry in run:
            xor ^= int(entry.digest, 16)
            if entry.previous:
                xor ^= int(entry.previous, 16)
            else:
                added += 1
        moved[shard] = moved.get(shard, Digest()).moved(xor, added)
    return moved
