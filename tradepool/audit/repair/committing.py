"""The one way in which repairs commit a record: as the version that follows the journal's newest of it."""

from __future__ import annotations

from collections.abc import Mapping

from tradepool.audit.repair.fixes import CHANGED
from tradepool.audit.repair.journaled import Journaled
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import content_at
from tradepool.errors import Corrupt, VersionConflict
from tradepool.store.plan import RecordChange

__all__ = ["commit_next"]


def commit_next(
    pool: RepairedPool, shard: int, change: RecordChange, journaled: Mapping[str, Journaled | None]
) -> str | None:
    """Commit the change; `CHANGED` where somebody else was first.

    `journaled` has what was found of each record that the journal was asked for, None where that was nothing.
    What the store has is either the journal's newest version or one that the journal never had. So nothing
    that was journaled is followed by a version that is not above it, which recovery would refuse.
    Raises: Corrupt for any other change: nothing was written.
    """
    after = content_at(pool.keys, shard, change.record_id, change.after)
    if after is None:
        raise Corrupt(f"{change.record_id!r} is not its own record in its own shard; a person has to decide")
    if change.record_id not in journaled:
        raise Corrupt(f"the journal was not asked for {change.record_id!r}; a person has to decide")
    newest = journaled[change.record_id]
    told = (change.record_id, shard, 0) if newest is None else _told(newest)
    if told != (change.record_id, shard, after.version - 1):
        raise Corrupt(
            f"version {after.version} of {change.record_id!r} does not follow the journal's {told[2]}; "
            "a person has to decide"
        )
    try:
        pool.store.commit(shard, [change])
    except VersionConflict:
        return CHANGED
    return None


def _told(newest: Journaled) -> tuple[str, int, int]:
    return newest.line.record_id, newest.shard, newest.line.version
