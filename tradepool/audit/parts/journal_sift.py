"""One segment of the journal, sifted: of each record its newest version there, by group of shards.

Whoever compares the snapshot needs more: the newest version when its scan began, and every version that
was journaled between there and the positions that it may reach.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from tradepool.audit.parts.part import SnapshotPin
from tradepool.audit.parts.rows import Row, RowFiles, When
from tradepool.errors import Corrupt
from tradepool.files.point import Place
from tradepool.files.reading import Group, read_groups, read_segment, segment_start
from tradepool.model.positions import START_POSITION, parse_position

__all__ = ["JournalSift", "rows_since"]


class _Entry(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={"shard": "s", "position": "x", "record_id": "id", "version": "v", "digest": "d"},
):
    """What an audit needs of a line of the journal."""

    shard: int
    position: str
    record_id: str
    version: int
    digest: str


_DECODER = msgspec.json.Decoder(_Entry)
_SHARD = b',"s":'
_HEAD_BYTES = 40
"""Of a line; its shard stands in there."""


class JournalSift:
    """Sifts segments of the journal at `path` for some `shards`, seen by a `snapshot`, if there is one."""

    def __init__(self, path: Path, shards: Collection[int], snapshot: SnapshotPin | None) -> None:
        self._path = path
        self._wanted = _Wanted(shards)
        self._begins_at = None if snapshot is None else snapshot.begins_at
        covers = {} if snapshot is None else snapshot.covers
        self._covers = {shard: parse_position(position) for shard, position in covers.items()}
        self._start = parse_position(START_POSITION)

    def sift(self, number: int, rows: RowFiles) -> Place:
        """Sift segment `number`; the place up to which it was read.

        Raises: as `read_segment`.
        """
        end = segment_start(self._path, number)
        is_before = True
        for group in read_segment(self._path, end):
            if is_before and self._begins_at is not None and group.end.seq > self._begins_at:
                # What is newest when the scan begins must not be replaced by what comes later.
                rows.flush()
                is_before = False
            for entry in self._wanted.of(group):
                self._sift_entry(entry, rows, is_before=is_before)
            end = group.end
        return end

    def _sift_entry(self, entry: _Entry, rows: RowFiles, *, is_before: bool) -> None:
        record_id, shard, version, digest = entry.record_id, entry.shard, entry.version, entry.digest
        if is_before:
            rows.replace(Row(record_id, shard, version, digest, When.BEFORE))
        elif parse_position(entry.position) <= self._covers.get(shard, self._start):
            rows.add(Row(record_id, shard, version, digest, When.WITHIN))
        else:
            rows.replace(Row(record_id, shard, version, digest, When.AFTER))


def rows_since(path: Path, place: Place, shards: Collection[int]) -> Iterator[tuple[Row, Place]]:
    """What the journal holds of some shards behind `place`, each with the place behind its group.

    Raises: as `read_groups`.
    """
    wanted = _Wanted(shards)
    for group in read_groups(path, since=place):
        for entry in wanted.of(group):
            yield Row(entry.record_id, entry.shard, entry.version, entry.digest, When.AFTER), group.end


class _Wanted:
    """The entries of some shards; other lines are not decoded."""

    def __init__(self, shards: Collection[int]) -> None:
        self._shards = frozenset(b"%d" % shard for shard in shards)

    def of(self, group: Group) -> Iterator[_Entry]:
        """Those of the group. Raises: Corrupt for a line that is no entry."""
        for line in group.lines:
            _, _, rest = line[:_HEAD_BYTES].partition(_SHARD)
            if rest.partition(b",")[0] in self._shards:
                try:
                    yield _DECODER.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
                    raise Corrupt(
                        f"a journal line with a right checksum cannot be read: {problem}"
                    ) from problem
