"""Moving closed trades from the store to the archive, once they are older than the retention.

A part of the archive is written whole and durably before the first of its trades leaves the store, so a
trade is never in neither. While a part is being committed it is marked unsettled: it may hold rows of
trades that changed meanwhile and stay live. Such rows are dropped at the end. A run that ended too early is
finished by the next one before that does anything else: its trades are archived as far as they have not
changed, so that a commit of which nobody knows whether it will still go through comes to the same. So once
a run is over, every row of the archive belongs to an archived trade, and no trade has two.

What a commit answers does not decide about a row: a client that lost the answer has sent it again, and was
told of a conflict with its own first one. Only a record that was read decides.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from tradepool.archive.columns import stored
from tradepool.archive.database import translated
from tradepool.archive.folder import ArchiveFolder, day_of, day_of_part
from tradepool.archive.parts import Row, drop_rows, has_right_digests, read_rows, write_part
from tradepool.archive.seals import adopt, is_sealed, settle_seal
from tradepool.due_trades import Due, change_of, commits_of, ends_at, is_archived, is_due, parts_of
from tradepool.errors import Corrupt, ResourceUnavailable
from tradepool.files.durable import FileLock
from tradepool.files.steady_clock import steady_now_us, uptime
from tradepool.model import codec
from tradepool.settings import Settings
from tradepool.store.durability import await_durable
from tradepool.store.indexes import Window
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

__all__ = ["ArchiveReport", "Archiving"]

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
        """Archive every final trade that ended, and last changed, longer than `retention_s` ago.

        Durable on return. Ago is by a clock that does not jump ahead.

        A trade that somebody changes meanwhile is left to the next run. Finding them costs a look at
        each user's oldest live trades, not at all trades.

        Raises: PoolLocked when another run is at work, ResourceUnavailable when the disk fails or the
        archive has gone, StoreUnavailable, Fenced, JournalUnavailable; Misconfigured without DuckDB; Corrupt
        when the store has lost a trade. What was archived by then stays so, and the next run finishes what
        was begun.
        """
        start = time.monotonic()
        written: list[tuple[Path, int]] = []
        complete = True
        with translated(str(self._folder.path)), closing(self._lock()):
            # An archived trade takes no change any more: a clock that is wrong for an hour must not do that.
            now_us = steady_now_us(self._folder.clock_mark, self._now_us(), uptime())
            cutoff = now_us - self._settings.retention_s * _SECOND_US
            written += self._finish_left_over()
            for due in parts_of(self._due(cutoff), round_max=ROUND_TRADES_MAX, part_max=PART_TRADES_MAX):
                if time.monotonic() - start > RUN_S_MAX:
                    complete = False
                    break
                written.append(self._archive(due))
            self._adopt_old(start)
        return ArchiveReport(
            archived=sum(count for _, count in written),
            days=tuple(sorted({day_of_part(part) for part, _ in written})),
            bytes=sum(part.stat().st_size for part, _ in written),
            seconds=time.monotonic() - start,
            complete=complete,
        )

    def _lock(self) -> FileLock:
        """The archive's lock, whose folder is created for the first trade only.

        An archive that was moved away, or is not mounted, must not be replaced by one without its trades:
        nobody who reads would know of them any more.
        """
        if not self._folder.exists and any(map(self._store.archived_counters_of_shard, self._shards())):
            raise ResourceUnavailable(
                f"trades have been archived, and there is no archive in {self._folder.path}; mount it there, "
                "link to it or restore it from a backup"
            )
        return self._folder.lock()

    def _shards(self) -> range:
        return self._store.keys.shards

    def _due(self, cutoff: int) -> Iterator[Due]:
        """Final trades that ended and last changed before `cutoff`, user by user, created before it."""
        for shard in self._shards():
            for user_id in set(self._store.users(shard)):
                yield from self._due_of(shard, user_id, cutoff)

    def _due_of(self, shard: int, user_id: str, cutoff: int) -> Iterator[Due]:
        cursor = None
        while True:
            window = Window(_PAGE, newest_first=False, until=cutoff, cursor=cursor)
            page = self._store.user_page(user_id, window)
            for value in self._store.read([(shard, entry.trade_id) for entry in page]):
                if value is None or codec.read_header(value).kind != codec.TRADE_KIND:
                    continue
                trade = codec.unpack_trade(value)
                if is_due(trade, cutoff):
                    yield Due(day_of(ends_at(trade)), shard, trade.trade_id, value)
            if len(page) < _PAGE:
                return
            cursor = page[-1].cursor

    def _archive(self, due: Sequence[Due]) -> tuple[Path, int]:
        """One part: marked, written, committed, settled. The part, and how many trades it keeps."""
        part = self._folder.next_part(due[0].day)
        self._folder.mark_unsettled(part)
        write_part(part, (stored(item.value) for item in due))
        generation = self._store.generation()
        kept = self._commit(due)
        self._await_journal({item.shard for item in due}, generation)
        self._settle(part, {item.trade_id for item in due} - kept)
        return part, len(kept)

    def _commit(self, due: Iterable[Due]) -> set[str]:
        """Leave what is left of each trade in the store; the trades of which it is there.

        A trade that somebody else changed is left out, and the others of its commit are tried again.
        """
        command_id = f"archive-{uuid.uuid4().hex}"
        kept: set[str] = set()
        for _ in range(_ATTEMPTS_MAX):
            confirmed, lost = self._commit_once(due, command_id)
            kept |= confirmed
            if not lost:
                break
            pairs = list(zip(lost, self._read(lost), strict=True))
            kept.update(item.trade_id for item, value in pairs if is_archived(item.row, value))
            due = [item for item, value in pairs if value == item.value]
        return kept

    def _commit_once(self, due: Iterable[Due], command_id: str) -> tuple[set[str], list[Due]]:
        """The trades whose commits went through, and those of the other commits."""
        confirmed: set[str] = set()
        lost: list[Due] = []
        for commits in commits_of(due, batch_max=self._settings.batch_max, round_trip_max=ROUND_TRIP_MAX):
            changes = {
                shard: [change_of(item, command_id) for item in batch] for shard, batch in commits.items()
            }
            done = self._store.commit_all(changes)
            for shard, batch in commits.items():
                if shard in done:
                    confirmed.update(item.trade_id for item in batch)
                else:
                    lost += batch
        return confirmed, lost

    def _finish_left_over(self) -> list[tuple[Path, int]]:
        """Finish the part that a run has left unsettled: as `_archive`, with trades that have not changed."""
        part = self._folder.unsettled()
        if part is None:
            return []
        if not part.exists():
            self._folder.mark_settled()
            return []
        generation = self._store.generation()
        rows = read_rows(part)
        left = [Due(day_of_part(part), *place, b"") for place in self._places(rows)]
        found = [item._replace(value=value) for item, value in zip(left, self._read(left), strict=True)]
        pairs = list(zip(rows, found, strict=True))
        before = {row.trade_id for row, item in pairs if is_archived(row, item.value)}
        kept = self._commit(item for row, item in pairs if item.is_trade and item.row == row)
        self._await_journal({item.shard for item in found}, generation)
        self._settle(part, {row.trade_id for row in rows} - before - kept)
        return [(part, len(kept))]

    def _places(self, rows: Sequence[Row]) -> list[tuple[int, str]]:
        """Where the trades of `rows` are. Raises: Corrupt when nobody knows."""
        trade_ids = [row.trade_id for row in rows]
        places = []
        for trade_id, shard in zip(trade_ids, self._store.shards_of_trades(trade_ids), strict=True):
            if shard is None:
                raise _missing(trade_id)
            places.append((shard, trade_id))
        return places

    def _read(self, items: Sequence[Due]) -> list[bytes]:
        """What the store has of each. Raises: Corrupt when it lacks one: then no row of it may go."""
        places = [(item.shard, item.trade_id) for item in items]
        values = []
        for (_, trade_id), value in zip(places, self._store.read(places), strict=True):
            if value is None:
                raise _missing(trade_id)
            values.append(value)
        return values

    def _settle(self, part: Path, live: set[str]) -> None:
        if live:
            drop_rows(part, live)
        else:
            settle_seal(part)
        self._folder.mark_settled()

    def _adopt_old(self, start: float) -> None:
        """Seal the parts of releases that sealed none, as far as their rows match their digests."""
        for part in self._folder.parts():
            if time.monotonic() - start > RUN_S_MAX:
                return
            if not is_sealed(part) and has_right_digests(part):
                adopt(part)

    def _await_journal(self, shards: set[int], generation: str) -> None:
        """Wait until the journal has what the shards hold, and make sure that it is what was seen."""
        wanted = sorted(shards)
        positions = dict(zip(wanted, self._store.positions_in(generation, wanted), strict=True))
        await_durable(self._store, self._watermark, positions, generation, self._settings.journal_wait_s)


def _missing(trade_id: str) -> Corrupt:
    return Corrupt(
        f"the store lacks trade {trade_id}, which is being archived; its row stays: run "
        "'tradepool check-all-trades', and recover the store from its journal"
    )
