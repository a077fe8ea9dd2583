"""The records of a snapshot against the journal, group of shards by group of shards.

The snapshot says where the journal stood when its scan began, and up to which outbox positions it may
reach. So each of its records is the newest version at the beginning, or one that was journaled between
the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tradepool.audit.parts.rows import Row, When
from tradepool.audit.report import Finding
from tradepool.audit.rules.file_rules import Kept, snapshot_different
from tradepool.files.reading import Latest

__all__ = ["SnapshotComparison"]


class _Version(NamedTuple):
    version: int
    digest: str


class SnapshotComparison:
    """The records `kept` by a snapshot, as long as they are not found in the journal."""

    def __init__(self, kept: Iterable[Row]) -> None:
        self._records: defaultdict[int, dict[str, _Version]] = defaultdict(dict)
        """Of each shard: a fault may have put one id into two."""
        for row in kept:
            self._records[row.shard][row.record_id] = _Version(row.version, row.digest)
        self._has_begun = False
        self._found: list[Finding] = []

    def look(self, row: Row, newest: Mapping[int, Mapping[str, Latest]]) -> None:
        """The next row of the journal, and by shard and id what was the newest before it."""
        if row.when != When.BEFORE:
            self._begin(newest)
        if row.when == When.WITHIN:
            self._see(row)

    def findings(self, newest: Mapping[int, Mapping[str, Latest]]) -> list[Finding]:
        """What was found by the end of the journal; what is left was never journaled."""
        self._begin(newest)
        for records in self._records.values():
            for record_id, kept in records.items():
                self._judge(Kept(record_id, *kept, 0, None))
        self._records.clear()
        return self._found

    def _begin(self, newest: Mapping[int, Mapping[str, Latest]]) -> None:
        """The scan began here: the snapshot has all of this, or newer."""
        if self._has_begun:
            return
        self._has_begun = True
        for shard, records in newest.items():
            mine = self._records[shard]
            for record_id, latest in records.items():
                kept = mine.get(record_id)
                if kept is None:
                    self._judge(Kept(record_id, None, "", latest.version, None))
                elif kept.version <= latest.version:
                    del mine[record_id]
                    self._judge(Kept(record_id, *kept, latest.version, latest.digest))

    def _see(self, row: Row) -> None:
        """A version behind the beginning, and not behind where the snapshot says that it ends."""
        mine = self._records[row.shard]
        kept = mine.get(row.record_id)
        if kept is not None and kept.version == row.version:
            del mine[row.record_id]
            self._judge(Kept(row.record_id, *kept, 0, row.digest))

    def _judge(self, kept: Kept) -> None:
        self._found += snapshot_different(kept)
