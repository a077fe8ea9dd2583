"""Moving closed trades from the store to the archive, once they are older than the retention.

A part of the archive is written whole and durably before the first of its trades leaves the store, so a
trade is never in neither. While a part is being committed it is marked unsettled: it may hold rows of
trades that changed meanwhile and stay live. Such rows are dropped at the end, or, after a crash, by the
next run before it does anything else. So once a run is over, every row of the archive belongs to an
archived trade, and no trade has two.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from tradepool.archive.columns import stored
from tradepool.archive.database import translated
from tradepool.archive.folder import ArchiveFolder, day_of
from tradepool.archive.parts import Row, drop_rows, read_rows, write_part
from tradepool.errors import JournalUnavailable
from tradepool.model import codec
from tradepool.model.archived import archived
from tradepool.model.trade import Trade
from tradepool.settings import Settings
from tradepool.store.indexes import Window
from tradepool.store.plan import RecordChange
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["ArchiveReport", "Archiving", "ends_at"]

ROUND_TRADES_MAX = 100_000
"""Trades found before the first of them are written: what a run holds in memory, compressed."""
PART_TRADES_MAX = 20_000
ROUND_TRIP_MAX = 500
"""Trades committed in one round trip: they hold the server up for some milliseconds."""
RUN_S_MAX = 600.0
"""After this a run begins no other part and leaves the rest to the next run."""

_PAGE = 500
_ATTEMPTS_MAX = 3
_SECOND_US = 1_000_000


class ArchiveReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run moved: trades, the days they went to, bytes written, seconds it took."""

    archived: int
    days: tuple[str, ...]
    bytes: int
    seconds: float
    complete: bool
    """Whether nothing was left for want of time."""


class _Due(NamedTuple):
    """A trade to archive: where it is, and its stored value."""

    day: str
    shard: int
    trade_id: str
    value: bytes


class Archiving:
    """Archives the closed trades of one store under one folder."""

    def __init__(
        self,
        store: RedisStore,
        watermark: Watermark,
        folder: ArchiveFolder,
        settings: Settings,
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._watermark = watermark
        self._folder = folder
        self._settings = settings
        self._now_us = now_us

    def run(self) -> ArchiveReport:
        """Archive every final trade that ended longer than `retention_s` ago; durable on return.

        A trade that somebody changes meanwhile is left to the next run. Finding them costs a look at
        each user's oldest live trades, not at all trades.

        Raises: PoolLocked when another run is at work, ResourceUnavailable when the disk fails,
        StoreUnavailable, Fenced, JournalUnavailable; Misconfigured without DuckDB. What was archived by
        then stays so, and the next run finishes what was begun.
        """
        start = time.monotonic()
        cutoff = self._now_us() - self._settings.retention_s * _SECOND_US
        written: list[tuple[Path, int]] = []
        complete = True
        with translated(str(self._folder.path)), closing(self._folder.lock()):
            self._settle_left_over()
            for due in _parts(self._due(cutoff)):
                if time.monotonic() - start > RUN_S_MAX:
                    complete = False
                    break
                written.append(self._archive(due))
        return ArchiveReport(
            archived=sum(count for _, count in written),
            days=tuple(sorted({part.parent.name.partition("=")[2] for part, _ in written})),
            bytes=sum(part.stat().st_size for part, _ in written),
            seconds=time.monotonic() - start,
            complete=complete,
        )

    def _due(self, cutoff: int) -> Iterator[_Due]:
        """Final trades that ended before `cutoff`: among those created before it, user by user."""
        for shard in range(self._store.keys.shard_count):
            for user_id in set(self._store.users(shard)):
                yield from self._due_of(shard, user_id, cutoff)

    def _due_of(self, shard: int, user_id: str, cutoff: int) -> Iterator[_Due]:
        cursor = None
        while True:
            window = Window(_PAGE, newest_first=False, until=cutoff, cursor=cursor)
            page = self._store.user_page(user_id, window)
            for value in self._store.read([(shard, entry.trade_id) for entry in page]):
                if value is None or codec.read_header(value).kind != codec.TRADE_KIND:
                    continue
                trade = codec.unpack_trade(value)
                if not trade.is_open and ends_at(trade) < cutoff:
                    yield _Due(day_of(ends_at(trade)), shard, trade.trade_id, value)
            if len(page) < _PAGE:
                return
            cursor = page[-1].cursor

    def _archive(self, due: Sequence[_Due]) -> tuple[Path, int]:
        """One part: marked, written, committed, settled. The part, and how many trades it keeps."""
        part = self._folder.next_part(due[0].day)
        self._folder.mark_unsettled(part)
        write_part(part, (stored(item.value) for item in due))
        generation = self._store.generation()
        kept = self._commit(due)
        self._await_journal({item.shard for item in due}, generation)
        self._settle(part, {item.trade_id for item in due} - kept)
        return part, len(kept)

    def _commit(self, due: Iterable[_Due]) -> set[str]:
        """Leave what is left of each trade in the store; the trades for which that succeeded.

        A trade that somebody else changed is left out, and the others of its commit are tried again.
        """
        command_id = f"archive-{uuid.uuid4().hex}"
        kept: set[str] = set()
        for _ in range(_ATTEMPTS_MAX):
            lost: list[_Due] = []
            for commits in _commits(due, self._settings.batch_max):
                changes = {
                    shard: [_change(item, command_id) for item in batch] for shard, batch in commits.items()
                }
                done = self._store.commit_all(changes)
                for shard, batch in commits.items():
                    if shard in done:
                        kept.update(item.trade_id for item in batch)
                    else:
                        lost += batch
            if not lost:
                break
            values = self._store.read([(item.shard, item.trade_id) for item in lost])
            due = [item for item, value in zip(lost, values, strict=True) if value == item.value]
        return kept

    def _settle_left_over(self) -> None:
        """Drop from an unsettled part what the run that ended too early did not archive."""
        part = self._folder.unsettled()
        if part is None:
            return
        generation = self._store.generation()
        if part.exists():
            rows = read_rows(part)
            shards = self._store.shards_of_trades([row.trade_id for row in rows])
            places = [
                (0 if shard is None else shard, row.trade_id) for shard, row in zip(shards, rows, strict=True)
            ]
            values = self._store.read(places)
            self._await_journal({shard for shard, _ in places}, generation)
            pairs = zip(rows, values, strict=True)
            self._settle(part, {row.trade_id for row, value in pairs if not _is_archived(row, value)})
        else:
            self._folder.mark_settled()

    def _settle(self, part: Path, live: set[str]) -> None:
        if live:
            drop_rows(part, live)
        self._folder.mark_settled()

    def _await_journal(self, shards: set[int], generation: str) -> None:
        """Wait until the journal has what the shards hold, and make sure that it is what was seen."""
        wanted = sorted(shards)
        positions = dict(zip(wanted, self._store.positions(wanted), strict=True))
        self._watermark.wait(positions, self._settings.journal_wait_s)
        if self._store.generation() != generation:
            raise JournalUnavailable("the server was recovered while trades were archived; run it again")


def ends_at(trade: Trade) -> int:
    """When a final trade ended, µs: what its retention is counted from, and its day in the archive."""
    ended = trade.updated_at if trade.closed_at is None else trade.closed_at
    return max(ended, trade.created_at)


def _parts(due: Iterator[_Due]) -> Iterator[list[_Due]]:
    """The trades in parts of one day each, found `ROUND_TRADES_MAX` at a time."""
    while found := list(islice(due, ROUND_TRADES_MAX)):
        days: dict[str, list[_Due]] = defaultdict(list)
        for item in found:
            days[item.day].append(item)
        found.clear()
        for _, items in sorted(days.items()):
            rest = iter(items)
            while part := list(islice(rest, PART_TRADES_MAX)):
                yield part


def _commits(due: Iterable[_Due], batch_max: int) -> Iterator[dict[int, list[_Due]]]:
    """The trades as commits of one shard each, so many at a time as one round trip may carry."""
    commits: dict[int, list[_Due]] = defaultdict(list)
    count = 0
    for item in sorted(due, key=lambda item: item.shard):
        if count == ROUND_TRIP_MAX or len(commits[item.shard]) == batch_max:
            yield dict(commits)
            commits, count = defaultdict(list), 0
        commits[item.shard].append(item)
        count += 1
    if commits:
        yield dict(commits)


def _change(item: _Due, command_id: str) -> RecordChange:
    trade = codec.unpack_trade(item.value)
    left = archived(trade, item.day, codec.read_header(item.value).digest)
    return RecordChange(
        kind=codec.ARCHIVED_KIND,
        record_id=trade.trade_id,
        user_id=trade.user_id,
        before=item.value,
        after=codec.pack_archived(left),
        trade_before=trade,
        command_id=command_id,
    )


def _is_archived(row: Row, value: bytes | None) -> bool:
    """Whether the store holds what is left of exactly this version of the trade."""
    if value is None or codec.read_header(value).kind != codec.ARCHIVED_KIND:
        return False
    left = codec.unpack_archived(value)
    return left.version == row.version + 1 and left.digest in ("", row.digest)
