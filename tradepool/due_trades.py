"""Trades due for the archive: as rows of its parts, and as commits that leave a record of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tradepool.archive.parts import Row
from tradepool.batching import batched
from tradepool.model import codec
from tradepool.model.archived import archived
from tradepool.model.trade import Trade
from tradepool.store.plan import RecordChange

__all__ = ["Due", "change_of", "commits_of", "ends_at", "is_archived", "is_due", "parts_of"]


class Due(NamedTuple):
    """A trade to archive: where it is, and its stored value."""

    day: str
    shard: int
    trade_id: str
    value: bytes

    @property
    def row(self) -> Row:
        """The trade's row in its part."""
        header = codec.read_header(self.value)
        return Row(self.trade_id, header.version, header.digest)

    @property
    def is_trade(self) -> bool:
        """Whether the value is a trade's, and not what is left of one."""
        return codec.read_header(self.value).kind == codec.TRADE_KIND


def is_due(trade: Trade, cutoff: int) -> bool:
    """Whether it ended before `cutoff`, µs, nobody has added or changed it since, and it is in no quarantine.

    An archived trade does not change any more, so nobody could release it.
    """
    return not trade.is_open and trade.quarantine is None and max(ends_at(trade), trade.updated_at) < cutoff


def ends_at(trade: Trade) -> int:
    """When a final trade ended, µs: what its retention is counted from, and its day in the archive."""
    ended = trade.updated_at if trade.closed_at is None else trade.closed_at
    return max(ended, trade.created_at)


def parts_of(due: Iterator[Due], *, round_max: int, part_max: int) -> Iterator[list[Due]]:
    """The trades in parts of one day each, found `round_max` at a time."""
    for found in batched(due, round_max):
        days: dict[str, list[Due]] = defaultdict(list)
        for item in found:
            days[item.day].append(item)
        found.clear()
        for _, items in sorted(days.items()):
            yield from batched(items, part_max)


def commits_of(due: Iterable[Due], *, batch_max: int, round_trip_max: int) -> Iterator[dict[int, list[Due]]]:
    """The trades as commits of one shard each, so many at a time as one round trip may carry."""
    commits: dict[int, list[Due]] = defaultdict(list)
    count = 0
    for item in sorted(due, key=lambda item: item.shard):
        if count == round_trip_max or len(commits[item.shard]) == batch_max:
            yield dict(commits)
            commits, count = defaultdict(list), 0
        commits[item.shard].append(item)
        count += 1
    if commits:
        yield dict(commits)


def change_of(item: Due, command_id: str) -> RecordChange:
    """The change that leaves of the trade what stays in the store: the same bytes each time it is made."""
    trade = codec.unpack_trade(item.value)
    left = archived(trade, item.day, item.row.digest)
    return RecordChange(
        kind=codec.ARCHIVED_KIND,
        record_id=trade.trade_id,
        user_id=trade.user_id,
        before=item.value,
        after=codec.pack_archived(left),
        trade_before=trade,
        command_id=command_id,
    )


def is_archived(row: Row, value: bytes) -> bool:
    """Whether the store holds what is left of exactly this version of the trade."""
    if codec.read_header(value).kind != codec.ARCHIVED_KIND:
        return False
    left = codec.unpack_archived(value)
    return left.version == row.version + 1 and left.digest in ("", row.digest)
