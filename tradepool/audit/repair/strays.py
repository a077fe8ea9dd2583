"""Records in a place that is not theirs: under another id, in another bucket, in another user's shard.

Nobody who asks for a record finds it there. It is taken away once the record itself is whole in its own
place, where the journal's newest version of it is put first if need be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from tradepool.audit.repair.fixes import CHANGED, Fix, refusal
from tradepool.audit.repair.journaled import Journaled, newest_records
from tradepool.audit.repair.records import RecordRepairs, told_text, told_version
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import content_at, content_of
from tradepool.audit.report import Finding, shown
from tradepool.audit.rules.record_rules import own_id, record_header
from tradepool.errors import Corrupt, JournalUnavailable
from tradepool.model import codec
from tradepool.store.mending import Look, Mending, Write
from tradepool.store.translation import text_of

__all__ = ["STRAY", "Strays"]

STRAY = "take the stray record away"


class _Stray(NamedTuple):
    """A record that stands where it does not belong."""

    shard: int
    bucket: int
    record_id: str
    """The name of the field that it stands under."""
    value: bytes
    content: codec.Record | None
    """None: it cannot be read."""


class Strays:
    """The stray records that findings name."""

    def __init__(self, pool: RepairedPool, findings: Iterable[Finding]) -> None:
        self._pool = pool
        names = {finding.subject for finding in findings if finding.rule == record_header.name}
        self._problem: str | None = None
        self._journaled: dict[str, Journaled] = {}
        self._strays = self._found(names) if names else []

    def names(self) -> frozenset[str]:
        """Names that findings show, and that no record of the journal has: nothing is put back there."""
        return frozenset(
            shown(stray.record_id) for stray in self._strays if stray.record_id not in self._journaled
        )

    def homeless(self) -> frozenset[str]:
        """Records that are not whole in their own place, by the names that findings show."""
        homes = (self._home(stray) for stray in self._strays)
        return frozenset(shown(record_id) for shard, record_id in homes if not self._whole(shard, record_id))

    def fixes(self, records: RecordRepairs) -> Iterator[Fix]:
        """What to take away; `records` are told of shards whose sums have it."""
        for stray in self._strays:
            label = f"{self._key(stray)} {stray.record_id}"
            user_id = None if stray.content is None else stray.content.user_id
            records.note_unsound(label, stray.shard, user_id)
            why = self._why_not(stray)
            if why is not None:
                records.give_up(label)
                yield refusal(STRAY, stray.record_id, why, user_id)
                continue
            yield Fix(
                action=STRAY,
                subject=shown(stray.record_id),
                detail=f"{self._key(stray)}: {self._told(stray)} → nothing",
                act=partial(self._take_away, stray, records, label),
                user_id=user_id,
                overwrites=told_text(stray.value),
            )

    def _found(self, names: set[str]) -> list[_Stray]:
        found: dict[tuple[int, int, str], _Stray] = {}
        for shard in self._pool.keys.shards:
            for stray in self._in_shard(shard, names):
                found[stray.shard, stray.bucket, stray.record_id] = stray
        wanted = {stray.record_id for stray in found.values()} | {
            self._home(stray)[1] for stray in found.values()
        }
        if not wanted:
            return []
        try:
            shards = self._pool.keys.shards
            self._journaled = newest_records(self._pool, shards, lambda line: line.record_id in wanted)
        except (Corrupt, JournalUnavailable) as problem:
            self._problem = str(problem)
        return [stray for _, stray in sorted(found.items()) if not self._is_another_in_place(stray)]

    def _in_shard(self, shard: int, names: set[str]) -> Iterator[_Stray]:
        keys = self._pool.keys
        try:
            for bucket, page in self._pool.store.scan_buckets(shard):
                for name, value in page.items():
                    record_id = text_of(name)
                    if shown(record_id) not in names:
                        continue
                    content = content_of(value)
                    is_own = content is None or content_at(keys, shard, record_id, value) is not None
                    if not is_own or keys.bucket_of(record_id) != bucket:
                        yield _Stray(shard, bucket, record_id, value, content)
        except Corrupt:
            # A key of a wrong type is a fault of its own.
            return

    def _is_another_in_place(self, stray: _Stray) -> bool:
        """Whether a record of the journal belongs there: that one is put back in its place."""
        journaled = self._journaled.get(stray.record_id)
        is_bucket = self._pool.keys.bucket_of(stray.record_id) == stray.bucket
        return journaled is not None and is_bucket and journaled.shard == stray.shard

    def _home(self, stray: _Stray) -> tuple[int, str]:
        """Where the record belongs."""
        if stray.content is None:
            return stray.shard, stray.record_id
        return self._pool.keys.shard_of_user(stray.content.user_id), own_id(stray.content)

    def _whole(self, shard: int, record_id: str, version: int = 0) -> bool:
        """Whether the record is in its own place, of that version or a later one."""
        value = self._pool.store.read([(shard, record_id)])[0]
        content = content_at(self._pool.keys, shard, record_id, value)
        return content is not None and content.version >= version

    def _why_not(self, stray: _Stray) -> str | None:
        if self._problem is not None:
            return self._problem
        shard, record_id = self._home(stray)
        version = told_version(stray.value)
        if self._whole(shard, record_id, version):
            return None
        journaled = self._journaled.get(record_id)
        if journaled is not None and journaled.line.version >= version:
            return None
        return (
            f"neither its own place nor the journal has version {version} of {shown(record_id)}; "
            "a person has to decide"
        )

    def _take_away(self, stray: _Stray, records: RecordRepairs, label: str) -> str | None:
        if not self._whole(*self._home(stray), told_version(stray.value)):
            records.give_up(label)
            return "the record itself is not in its own place yet; repair again"
        key = self._key(stray)
        look, write = Look("HGET", key, [stray.record_id], stray.value), Write("HDEL", key, [stray.record_id])
        if not self._pool.mender.mend(Mending([look], [write])):
            records.give_up(label)
            return CHANGED
        records.note_sound(label)
        return None

    def _key(self, stray: _Stray) -> str:
        return self._pool.keys.records(stray.shard, stray.bucket)

    def _told(self, stray: _Stray) -> str:
        _, record_id = self._home(stray)
        return f"version {told_version(stray.value)} of {shown(record_id)}, whose place is another"
