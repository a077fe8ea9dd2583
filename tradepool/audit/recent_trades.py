"""Which trades must be among the recent ones of a shard, whatever came and went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from heapq import nlargest

from tradepool.audit.shard_records import ShardRecords

__all__ = ["never_pushed_out"]

_AFTER_ALL_IDS = chr(0x10FFFF)
_ONE_DAY = timedelta(days=1)


def never_pushed_out(listed: Mapping[str, float], records: ShardRecords, recent_max: int) -> set[str]:
    """Sound trades that are not `listed` (id → creation, µs), and of which no `recent_max` were newer ever.

    A trade leaves the list when it is archived, or when that many newer ones are in it. Those are live, or
    were archived since, under a day that is not before their creation. So the newest of all that there were
    never left. Further back nobody knows what was archived when, and nothing is asked for.
    """
    created = records.created
    unlisted = created.keys() - listed.keys() - records.unsound
    if unlisted and len(listed) >= recent_max:
        oldest = min((at, trade_id) for trade_id, at in listed.items())
        unlisted = {trade_id for trade_id in unlisted if (created[trade_id], trade_id) > oldest}
    if not unlisted:
        return set()
    known = {(at, trade_id) for trade_id, at in (*created.items(), *listed.items())}
    gone = ((_end_us(left.day), _AFTER_ALL_IDS) for left in records.archived.values())
    newest = nlargest(recent_max, (*known, *gone))
    return unlisted & {trade_id for _, trade_id in newest}


def _end_us(day: str) -> float:
    """When a day of the archive ends, µs; of one that cannot be read never."""
    try:
        return (datetime.fromisoformat(day).replace(tzinfo=UTC) + _ONE_DAY).timestamp() * 1_000_000
    except ValueError:
        return float("inf")
