"""The store as whoever watches sees it: journal, audits, marks and workers at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal

import msgspec

from tradepool import wire
from tradepool.audit.parts.run_board import RunBoard, RunningAudit
from tradepool.audit.reports.course import standing
from tradepool.audit.reports.kept import ReportBrief, read_brief
from tradepool.audit.rules.registry import Level
from tradepool.clock import now_us
from tradepool.errors import Corrupt
from tradepool.marking.mark_totals import MarkTotals, newest_totals
from tradepool.settings import Settings
from tradepool.store.audit_reports import ReportName
from tradepool.store.connection import Client, connect
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore
from tradepool.store.shard_count import check_shard_count
from tradepool.store.vitals import BEAT_EVERY_S, JournalLatencies, Memory, StoreVitals, Vitals, WorkerBeat

__all__ = ["SILENT_AFTER_S", "MarksState", "StoreReader", "StoreState", "WorkersState"]

SILENT_AFTER_S = 6 * BEAT_EVERY_S
"""A worker that was not heard of for so long is silent: a busy machine delays a beat, not six."""


_LEVELS = frozenset(Level)


class MarksState(msgspec.Struct, frozen=True, kw_only=True):
    """What the last mark came to."""

    totals: MarkTotals
    latency_us: int
    """From the time of its prices until users could read it; of several devices the slowest."""
    unrealised: dict[str, float]
    """Currency → what all open trades have gained; the exact amounts are in `totals`."""


class WorkersState(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers of a queue were heard of lately, and which ones fell silent within the last hour."""

    alive: int
    silent: tuple[str, ...]


class StoreState(msgspec.Struct, frozen=True, kw_only=True):
    """The store at one moment; times in µs."""

    is_fenced: bool
    created_at: int
    outbox: int
    """Commits that the journal has not taken out of the outboxes yet."""
    behind_since: int | None
    """When the first of them was made."""
    records: int
    """What the journal holds: trades, ledgers, and what is left of archived trades."""
    latencies: JournalLatencies | None
    marks: MarksState | None
    book_differences: int
    """Trades in which the book that is marked and the store differed at the last check."""
    audits: dict[str, ReportBrief]
    """Level → the newest report of it."""
    running_audits: tuple[RunningAudit, ...]
    """Those that the fleet's workers are doing together."""
    undelivered_pages: dict[str, str]
    quarantined: int
    workers: dict[str, WorkersState]
    """Every queue that must have a worker."""
    memory: Memory

    @property
    def last_audit(self) -> ReportBrief | None:
        """The newest report of any level."""
        return max(self.audits.values(), key=lambda brief: brief.started_at, default=None)

    @property
    def marked_at(self) -> int | None:
        """The time of the last marks' prices, or when the pool was made; None before there is one."""
        return (self.marks.totals.at if self.marks is not None else self.created_at) or None

    def audited_at(self, level: Level) -> int:
        """When the last audit of `level` or a deeper one began; when the pool was made, if there was none."""
        return max((brief.started_at for brief in self._as_deep(level)), default=self.created_at)

    @property
    def standing_audits(self) -> list[ReportBrief]:
        """The newest report of each level, unless a deeper audit came after it and so has the last word."""
        return standing(self.audits.values())

    def _as_deep(self, level: Level) -> Iterator[ReportBrief]:
        return (brief for name, brief in self.audits.items() if level in Level(name).runs)


class StoreReader:
    """Reads the store of `settings`. For one thread.

    Raises: Misconfigured; StoreUnavailable when no node of a cluster answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: Client = connect(settings)
        self._shard_count = settings.shard_count
        keys = Keys(settings.shard_count)
        self._store = RedisStore(self._client, keys, settings)
        self._runs = RunBoard(self._store, now_us)
        self._vitals = Vitals(self._client, keys)
        self._devices = settings.pnl_devices
        self._briefs: dict[str, ReportBrief] = {}
        self._is_counted = False
        """Whether this store is known to have as many shards as the settings say."""

    def read(self, now: int) -> StoreState:
        """Its state at `now` (µs): one round trip; more at first, and while audits run, after one, after a
        recovery.

        Raises: StoreUnavailable, Misconfigured, Corrupt.
        """
        if not self._is_counted:
            check_shard_count(self._client, self._shard_count)
        vitals = self._vitals.read(self._devices)
        self._is_counted = self._is_counted or vitals.created_at > 0
        behind = [head.oldest_at for head in vitals.outboxes if head.oldest_at is not None]
        return StoreState(
            is_fenced=not vitals.is_open,
            created_at=vitals.created_at,
            outbox=sum(head.length for head in vitals.outboxes),
            behind_since=min(behind, default=None),
            records=sum(shard.count for shard in vitals.journaled),
            latencies=vitals.latencies,
            marks=_marks(vitals),
            book_differences=sum(
                msgspec.json.decode(check, type=_BookReport).different for check in vitals.book_checks
            ),
            audits=self._audits(vitals.audits),
            running_audits=self._runs.running() if vitals.audit_runs else (),
            undelivered_pages=vitals.undelivered_pages,
            quarantined=vitals.quarantined,
            workers=self._workers(vitals.workers, now),
            memory=vitals.memory,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _audits(self, kept: Iterable[ReportName]) -> dict[str, ReportBrief]:
        """The newest report of each level; those that are known already are not read again."""
        newest = {name.level: name for name in kept if name.level in _LEVELS}
        known = self._briefs.items()
        self._briefs = {level: brief for level, brief in known if brief.name == newest.get(level)}
        unknown = [name for level, name in newest.items() if level not in self._briefs]
        for name, value in zip(unknown, self._store.read_audits(unknown), strict=True):
            # One that cannot be read counts as none: its level is audited again, all else is told meanwhile.
            with suppress(Corrupt):
                if value is not None:
                    self._briefs[name.level] = read_brief(value)
        return dict(self._briefs)

    def _workers(self, beats: Sequence[WorkerBeat], now: int) -> dict[str, WorkersState]:
        found = {}
        for queue in dict.fromkeys((*wire.QUEUES, *wire.device_queues(self._devices))):
            of_queue = [beat for beat in beats if queue in beat.queues]
            silent = [beat.name for beat in of_queue if now - beat.at > SILENT_AFTER_S * 1_000_000]
            found[queue] = WorkersState(alive=len(of_queue) - len(silent), silent=tuple(silent))
        return found


class _BookReport(msgspec.Struct):
    different: int


def _marks(vitals: StoreVitals) -> MarksState | None:
    totals = newest_totals(vitals.mark_totals)
    if totals is None:
        return None
    newest = {part: readable_at - at for part, at, readable_at in reversed(vitals.marked)}
    return MarksState(
        totals=totals,
        latency_us=max(0, *newest.values(), 0),
        unrealised={currency: float(Decimal(amount)) for currency, amount in totals.totals.items()},
    )
