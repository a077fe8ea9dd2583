"""The pool's state as Prometheus metrics: names, units and labels are a contract with alerts and dashboard.

Every label has few values: a server, a queue, an entry of the schedule, a level, severity or rule of audits,
a currency. Ages are gauges in seconds and 0 where nothing waits; what cannot be read is left out.
"""

from __future__ import annotations

import math
import platform
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tradepool.audit.parts.run_board import RunningAudit
from tradepool.audit.report import Severity
from tradepool.audit.rules.registry import Level
from tradepool.errors import TradePoolError
from tradepool.fleet.broker_state import BrokerState
from tradepool.fleet.folder_state import FolderState
from tradepool.fleet.problems import problems_of
from tradepool.fleet.state import PoolState, Watcher, seconds_since
from tradepool.fleet.store_state import MarksState, StoreState
from tradepool.latencies import BOUNDS_S, LatencyCounts
from tradepool.settings import Settings
from tradepool.store.vitals import Memory

__all__ = ["PoolCollector"]

_US_PER_S = 1_000_000


class PoolCollector(Collector):
    """Looks at the pool of `watcher` at every scrape, one at a time."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._lock = threading.Lock()
        self._looked: tuple[float, PoolState, float] | None = None
        """When the last look ended, what it saw, and how long it took, s."""

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment; a server that is away is left out, and `tradepool_up` 0."""
        state, took_s = self._look()
        yield from _own(state, took_s, self._watcher.settings)
        if isinstance(state.store, StoreState):
            yield from _store(state.store, state.at)
        if isinstance(state.broker, BrokerState):
            yield from _broker(state.broker, state.at)
        if state.folder is not None:
            readable = isinstance(state.folder, FolderState)
            yield _gauge("data_folder_readable", "Whether the data folder could be read.", readable)
        if isinstance(state.folder, FolderState):
            yield from _folder(state.folder, state)
        yield from _memory({"store": state.store, "broker": state.broker})

    def _look(self) -> tuple[PoolState, float]:
        """How it all stands. Who had to wait for another's look takes that: looks at servers that hang must
        not queue up behind each other until none is in time.
        """
        came_s = time.perf_counter()
        with self._lock:
            if self._looked is None or self._looked[0] < came_s:
                began_s = time.perf_counter()
                state = self._watcher.look()
                ended_s = time.perf_counter()
                self._looked = ended_s, state, ended_s - began_s
            return self._looked[1:]


def _own(state: PoolState, took_s: float, settings: Settings) -> Iterator[Metric]:
    servers = {"store": state.store, "broker": state.broker}
    is_up = {name: not isinstance(found, TradePoolError) for name, found in servers.items()}
    yield _gauge("up", "Whether store and broker could be read.", all(is_up.values()))
    yield _labelled("server_up", "Whether this server could be read.", "server", is_up)
    build = {"version": version("tradepool"), "python": platform.python_version()}
    info = GaugeMetricFamily("tradepool_build_info", "What runs here; always 1.", labels=list(build))
    info.add_metric(list(build.values()), 1)
    yield info
    yield _gauge("read_seconds", "How long reading the pool's state took for this scrape.", took_s)
    yield _gauge("problems", "How many problems tradepool status shows.", len(problems_of(state, settings)))
    intervals = {
        "check-all-trades": settings.audit_every_s,
        "mark-to-market": settings.mark_every_s,
        "write-snapshot": settings.snapshot_every_s,
    }
    yield _labelled("interval_seconds", "How often the settings have it done.", "entry", intervals)
    yield _gauge(
        "visibility_timeout_seconds",
        "After how long a message that was not acknowledged is delivered again.",
        settings.visibility_timeout_s,
    )


def _store(store: StoreState, at: int) -> Iterator[Metric]:
    yield _gauge("fenced", "Whether the store takes no writes, for it waits for recovery.", store.is_fenced)
    yield _gauge("outbox_commits", "Commits that wait for the journal.", store.outbox)
    yield _age("journal_lag_seconds", "How long the first of them has waited.", store.behind_since, at)
    yield _gauge("journal_records", "Records that the journal holds.", store.records)
    if store.latencies is not None:
        yield _histogram(
            "journal_fsync_seconds", "How long a group of changes took onto the disk.", store.latencies.fsync
        )
        yield _histogram(
            "journal_commit_seconds",
            "From a commit in the store until it was on the disk and whoever waits could know.",
            store.latencies.commit,
        )
    yield from _audits(store, at)
    yield _gauge("quarantined_trades", "Trades that nobody can change until released.", store.quarantined)
    yield from _marks_age(store, at)
    if store.marks is not None:
        yield from _marks(store.marks)
    yield _gauge("book_differences", "Trades in which marked book and store differ.", store.book_differences)
    alive = {queue: workers.alive for queue, workers in store.workers.items()}
    silent = {queue: len(workers.silent) for queue, workers in store.workers.items()}
    yield _labelled("workers", "Workers of the queue that were heard of lately.", "queue", alive)
    yield _labelled("workers_silent", "Those that fell silent within the hour.", "queue", silent)


def _audits(store: StoreState, at: int) -> Iterator[Metric]:
    severities = GaugeMetricFamily(
        "tradepool_audit_findings",
        "Findings of the last audit of the level, unless a deeper one came after it.",
        labels=["level", "severity"],
    )
    rules = GaugeMetricFamily(
        "tradepool_audit_rule_findings", "The same by rule; without those of none.", labels=["level", "rule"]
    )
    for brief in store.standing_audits:
        for severity in Severity:
            severities.add_metric([brief.level, severity], brief.severities.get(severity, 0))
        for rule, count in brief.counts.items():
            rules.add_metric([brief.level, rule], count)
    yield severities
    yield rules
    if store.created_at:
        ages = {str(level): (at - store.audited_at(level)) / _US_PER_S for level in Level}
        yield _labelled(
            "audit_age_seconds",
            "Since the last audit at least as deep began, or the pool was made.",
            "level",
            ages,
        )
    durations = {level: brief.duration_s for level, brief in store.audits.items()}
    yield _labelled("audit_duration_seconds", "How long the last audit of it took.", "level", durations)
    yield from _running(store.running_audits)
    yield _gauge(
        "audit_pages_undelivered",
        "Audits with new critical findings that nobody could be told of.",
        len(store.undelivered_pages),
    )


def _running(runs: Sequence[RunningAudit]) -> Iterator[Metric]:
    yield _gauge("audit_runs", "Audits that the fleet's workers are doing together.", len(runs))
    yield _gauge("audit_run_parts", "The parts that these have.", sum(run.parts for run in runs))
    yield _gauge("audit_run_parts_done", "Those of them that are done.", sum(run.done for run in runs))
    yield _gauge(
        "audit_run_idle_seconds",
        "For how long the one that stands still the longest does.",
        max((run.idle_s for run in runs), default=0),
    )


def _marks_age(store: StoreState, at: int) -> Iterator[Metric]:
    if store.marked_at is not None:
        what = "How old the prices of the last marks are, or the pool without any."
        yield _age("marks_age_seconds", what, store.marked_at, at)


def _marks(marks: MarksState) -> Iterator[Metric]:
    totals = marks.totals
    yield _gauge(
        "marks_latency_seconds",
        "From the time of their prices until users could read the last marks.",
        marks.latency_us / _US_PER_S,
    )
    yield _gauge("marks_positions", "Open positions in the last marks.", totals.rows)
    yield _gauge("marks_users", "Users who hold something.", totals.users)
    symbols = {"missing": len(totals.missing), "stale": len(totals.stale)}
    yield _labelled("marks_symbols", "Symbols without a price, or with an old one.", "state", symbols)
    yield _gauge(
        "marks_price_age_seconds",
        "Age of the oldest price that is too old.",
        max(totals.stale.values(), default=0),
    )
    yield _labelled("marks_unrealised", "Unrealised profit of all open trades.", "currency", marks.unrealised)


def _broker(broker: BrokerState, at: int) -> Iterator[Metric]:
    depths = {queue: waiting.depth for queue, waiting in broker.queues.items()}
    ages = {queue: seconds_since(waiting.oldest_at, at) for queue, waiting in broker.queues.items()}
    yield _labelled("queue_messages", "Messages that wait on the queue.", "queue", depths)
    yield _labelled(
        "queue_oldest_message_age_seconds", "How long ago the one that is next was sent.", "queue", ages
    )
    yield _gauge("unacked_messages", "Messages that workers have taken and work on.", broker.unacked.depth)
    yield _age(
        "unacked_oldest_age_seconds", "How long ago the first was taken.", broker.unacked.oldest_at, at
    )
    yield _gauge("dead_letters", "Parked messages that a human has to look at.", broker.dead.depth)
    yield _age(
        "dead_letters_oldest_age_seconds", "Since when the first lies there.", broker.dead.oldest_at, at
    )
    ticks = {entry.name: entry.sent_at / _US_PER_S for entry in broker.entries if entry.sent_at is not None}
    late = {entry.name: seconds_since(entry.due_at, at) for entry in broker.entries}
    yield _gauge("beat_entries", "Entries of beat's schedule.", len(broker.entries))
    yield _labelled("beat_last_tick_timestamp_seconds", "When beat last sent it.", "entry", ticks)
    yield _labelled("beat_late_seconds", "For how long it has been due and not sent.", "entry", late)


def _folder(folder: FolderState, state: PoolState) -> Iterator[Metric]:
    at = state.at
    if state.snapshot_since is not None:
        what = "Since the last snapshot, or the pool was made."
        yield _age("snapshot_age_seconds", what, state.snapshot_since, at)
    if folder.archived_at is not None:
        yield _age("archive_age_seconds", "Since a part of the archive was written.", folder.archived_at, at)
    yield _age(
        "archive_unsettled_age_seconds",
        "Since a run of archiving began that has not ended well.",
        folder.unsettled_at,
        at,
    )
    yield _gauge("data_disk_free_bytes", "Room left on the disk of the data folder.", folder.free_bytes)
    yield _gauge("data_disk_size_bytes", "Size of that disk.", folder.size_bytes)


def _memory(servers: Mapping[str, object]) -> Iterator[Metric]:
    known: dict[str, Memory] = {
        name: found.memory for name, found in servers.items() if isinstance(found, StoreState | BrokerState)
    }
    used = {name: memory.used for name, memory in known.items()}
    allowed = {name: memory.allowed for name, memory in known.items()}
    yield _labelled("server_memory_used_bytes", "What the server uses.", "server", used)
    yield _labelled("server_memory_max_bytes", "What it may use; 0: no limit.", "server", allowed)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tradepool_{name}", what, value=float(value))


def _age(name: str, what: str, since: int | None, at: int) -> Metric:
    return _gauge(name, what, seconds_since(since, at))


def _labelled(name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"tradepool_{name}", what, labels=[label])
    for value, figure in values.items():
        family.add_metric([value], float(figure))
    return family


def _histogram(name: str, what: str, counts: LatencyCounts) -> Metric:
    bounds = map(str, (*BOUNDS_S, math.inf))
    buckets: Iterable[tuple[str, float]] = zip(bounds, accumulate(counts.counts), strict=True)
    named = [("+Inf" if bound == "inf" else bound, count) for bound, count in buckets]
    return HistogramMetricFamily(f"tradepool_{name}", what, buckets=named, sum_value=counts.sum_s)
