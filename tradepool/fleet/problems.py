"""What is wrong with a pool and its fleet, and what to do about it: the one list of all commands and metrics.

ops/prometheus/alerts.yml has an alert for each, over the same limits; an alert waits a while besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tradepool import wire
from tradepool.audit.rules.registry import Level
from tradepool.errors import Corrupt, Misconfigured, TradePoolError
from tradepool.fleet.broker_state import BrokerState, Entry
from tradepool.fleet.folder_state import FolderState
from tradepool.fleet.state import PoolState, seconds_since
from tradepool.fleet.store_state import MarksState, StoreState
from tradepool.settings import Settings
from tradepool.store.vitals import Memory

__all__ = ["Problem", "parked_problems", "problems_of"]

LAG_MAX_S = 10.0
"""How long a commit may wait for the journal: a third of what a call waits before it gives up."""
MARKS_AGE_MIN_S = 15.0
MARKS_LATE_TICKS = 5
"""Marks are old after this many ticks without any, and never before MARKS_AGE_MIN_S."""
QUEUE_AGE_MAX_S = 60.0
"""How long a message that somebody waits for may lie on its queue."""
SLOW_QUEUE_AGE_MAX_S = 900.0
"""The same where tasks take minutes: audits, snapshots, archiving."""
SLOW_QUEUES = (wire.QUEUE_AUDIT, wire.QUEUE_FILES)
GPU_WAITING_MAX = 50
"""Messages on a gpu queue beyond this are a problem: its worker drops what is old at once."""
UNACKED_AGE_VISIBILITIES = 2.0
"""After one visibility timeout a message is delivered again; after two nobody does."""
BEAT_LATE_MAX_S = 30.0
"""How late an entry of beat may be: a second beat takes over within 10 s."""
SNAPSHOTS_MISSED_MAX = 4
AUDITS_MISSED_MAX = 12
DEEP_AUDIT_AGE_MAX_S = 26 * 3600.0
"""A night and two hours, for it takes a while."""
AUDIT_IDLE_MAX_S = 1800.0
"""How long no part of an audit may get done; each takes seconds to a few minutes."""
UNSETTLED_MAX_S = 7200.0
"""A run of archiving ends after ten minutes, the next one settles what it left."""
DISK_FREE_MIN_SHARE = 0.1
MEMORY_MAX_SHARE = 0.85
"""Of what a server may use; it refuses commits at all of it."""
NAMED_MAX = 3
"""Symbols, workers and so on that a problem names."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong, and what to do about it."""

    what: str
    cure: str


def problems_of(state: PoolState, settings: Settings) -> tuple[Problem, ...]:
    """Everything that is wrong, the worst first. Without a fleet only what needs none."""
    return tuple(_problems(state, settings))


def _problems(state: PoolState, settings: Settings) -> Iterator[Problem]:
    store, broker = state.store, state.broker
    for server, answer in (("store", store), ("broker", broker)):
        if isinstance(answer, TradePoolError):
            yield _unread(server, answer)
    if isinstance(store, StoreState):
        yield from _journal(store, state.at)
        yield from _audits(store)
        yield from _memory("store", store.memory)
    if isinstance(state.folder, OSError):
        yield Problem(
            what=f"the data folder cannot be read: {state.folder}",
            cure="look at its disk, and whether this user may read it: the journal is there",
        )
    elif state.folder is not None:
        yield from _folder(state.folder, state.at)
    if isinstance(broker, BrokerState):
        yield from _broker(broker, state.at, settings)
    if isinstance(store, StoreState) and broker is not None:
        yield from _fleet(store, state, settings)


def _unread(server: str, why: TradePoolError) -> Problem:
    if isinstance(why, Misconfigured):
        return Problem(
            what=f"the {server} cannot be asked: {why}", cure="correct the setting that this names"
        )
    if isinstance(why, Corrupt):
        return Problem(
            what=f"the {server} has what cannot be read: {why}",
            cure="find what else writes to this server; 'tradepool check-all-trades --deep' names wrong keys",
        )
    return Problem(what=f"the {server} does not answer: {why}", cure="start it; all work waits for it")


def _journal(store: StoreState, at: int) -> Iterator[Problem]:
    if store.is_fenced:
        yield Problem(
            what="the store takes no writes: it waits for recovery",
            cure="start the files worker ('tradepool up'), or run 'tradepool recover'",
        )
    if (age_s := seconds_since(store.behind_since, at)) > LAG_MAX_S:
        yield Problem(
            what=f"{store.outbox} commits wait for the journal, the first for {age_s:,.0f} s",
            cure="look at the files worker's log: it is away, or its disk is full or slow",
        )


def _audits(store: StoreState) -> Iterator[Problem]:
    for brief in store.standing_audits:
        if not brief.ok:
            yield Problem(
                what=f"the last {brief.level} audit found {_counted(brief.counts)}",
                cure=f"run 'tradepool check-all-trades --level {brief.level}'; docs/audit.md has each rule",
            )
    for run in store.running_audits:
        if run.lost or run.idle_s > AUDIT_IDLE_MAX_S:
            yield Problem(
                what=f"the {run.level} audit {run.run_id} stands still, {run.done} of {run.parts} parts done",
                cure="look at the audit workers' log; it is given up by itself, another may be started",
            )
    if store.quarantined:
        yield Problem(
            what=f"{store.quarantined} trades are in quarantine: nobody can change them",
            cure="run 'tradepool quarantine' for which and why",
        )
    if store.undelivered_pages:
        run_id, problem = next(iter(store.undelivered_pages.items()))
        yield Problem(
            what=f"nobody could be told what the audit {run_id} found: {problem}",
            cure="correct TRADEPOOL_AUDIT_WEBHOOK_URL, or mend what it leads to",
        )


def _memory(server: str, memory: Memory) -> Iterator[Problem]:
    if memory.share > MEMORY_MAX_SHARE:
        yield Problem(
            what=f"the {server} uses {memory.share:.0%} of its memory: when it is full it refuses writes",
            cure="give it more (maxmemory), or find what fills it",
        )


def _folder(folder: FolderState, at: int) -> Iterator[Problem]:
    if folder.free_bytes < DISK_FREE_MIN_SHARE * folder.size_bytes:
        free = folder.free_bytes / folder.size_bytes
        yield Problem(
            what=f"the disk of the data folder has {free:.0%} left: when it is full nothing is acknowledged",
            cure="free it, or move finished segments and the archive to a larger one",
        )
    if (age_s := seconds_since(folder.unsettled_at, at)) > UNSETTLED_MAX_S:
        yield Problem(
            what=f"archiving has ended in the middle {age_s:,.0f} s ago, and no run went on since",
            cure="look at the files worker's log",
        )


def parked_problems(letters: int) -> Iterator[Problem]:
    """That so many `letters` are parked, unless there are none."""
    if letters:
        yield Problem(
            what=f"{letters} dead letters are parked",
            cure="run 'tradepool replay-dead --list' for their reasons; without --list it sends them again, "
            "with --discard it takes them away",
        )


def _broker(broker: BrokerState, at: int, settings: Settings) -> Iterator[Problem]:
    yield from parked_problems(broker.dead.depth)
    for queue, waiting in broker.queues.items():
        yield from _queue(queue, waiting.depth, seconds_since(waiting.oldest_at, at))
    unacked_s = seconds_since(broker.unacked.oldest_at, at)
    if unacked_s > UNACKED_AGE_VISIBILITIES * settings.visibility_timeout_s:
        yield Problem(
            what=f"a message was taken {unacked_s:,.0f} s ago, and neither acknowledged nor delivered again",
            cure="see that a worker of each queue runs: they give back what others left",
        )
    yield from _beat(broker.entries, at)
    yield from _memory("broker", broker.memory)


def _queue(queue: str, depth: int, age_s: float) -> Iterator[Problem]:
    is_gpu = queue.partition(".")[0] == wire.QUEUE_GPU
    if is_gpu and depth > GPU_WAITING_MAX:
        yield Problem(
            what=f"{depth} messages wait on the queue {queue}: no worker takes them",
            cure=f"start the worker of {queue} ('tradepool up'); it drops what is old",
        )
    elif age_s > (SLOW_QUEUE_AGE_MAX_S if queue in SLOW_QUEUES else QUEUE_AGE_MAX_S):
        yield Problem(
            what=f"{depth} messages wait on the queue {queue}, the next for {age_s:,.0f} s",
            cure=f"look at the workers of {queue}: too few, stuck, or waiting for the journal",
        )


def _beat(entries: Sequence[Entry], at: int) -> Iterator[Problem]:
    late = {entry.name: seconds_since(entry.due_at, at) for entry in entries}
    names = [name for name, late_s in late.items() if late_s > BEAT_LATE_MAX_S]
    if names:
        yield Problem(
            what=f"beat is {max(late.values()):,.0f} s late with {_named(names)}",
            cure="start beat ('tradepool up'), or look at its log",
        )
    if not entries:
        yield Problem(what="beat has no schedule on this broker", cure="start beat ('tradepool up')")


def _fleet(store: StoreState, state: PoolState, settings: Settings) -> Iterator[Problem]:
    """What only a fleet does: without one nobody audits, marks or takes snapshots by the clock."""
    for queue, workers in store.workers.items():
        if not workers.alive:
            yield Problem(what=f"no worker of the queue {queue} lives", cure="start one ('tradepool up')")
        elif workers.silent:
            yield Problem(
                what=f"the workers {_named(workers.silent)} fell silent",
                cure="start them again; one that is not needed is forgotten within the hour",
            )
    yield from _ages(store, state, settings)
    yield from _marks_age(store, state.at, settings.mark_every_s)
    if store.marks is not None:
        yield from _prices(store.marks)
    if store.book_differences:
        yield Problem(
            what=f"the book that is marked differs from the store in {store.book_differences} trades",
            cure="run 'tradepool check-all-trades' for which; delete book/, restart the gpu worker",
        )


def _ages(store: StoreState, state: PoolState, settings: Settings) -> Iterator[Problem]:
    limits = {Level.DIGEST: AUDITS_MISSED_MAX * settings.audit_every_s, Level.DEEP: DEEP_AUDIT_AGE_MAX_S}
    for level, limit_s in limits.items():
        if store.created_at and (age_s := seconds_since(store.audited_at(level), state.at)) > limit_s:
            yield Problem(
                what=f"there was no {level} audit for {age_s:,.0f} s",
                cure="is beat running? Look at the audit workers' log, and at their queue",
            )
    age_s = seconds_since(state.snapshot_since, state.at)
    if age_s > SNAPSHOTS_MISSED_MAX * settings.snapshot_every_s:
        yield Problem(
            what=f"there was no snapshot for {age_s:,.0f} s: a recovery would replay all since then",
            cure="is beat running? Look at the files worker's log",
        )


def _marks_age(store: StoreState, at: int, mark_every_s: float) -> Iterator[Problem]:
    age_s = seconds_since(store.marked_at, at)
    if age_s > max(MARKS_AGE_MIN_S, MARKS_LATE_TICKS * mark_every_s):
        found = f"the marks are {age_s:,.0f} s old" if store.marks else f"no marks for {age_s:,.0f} s"
        yield Problem(
            what=f"{found}, and one is due every {mark_every_s:g} s",
            cure="is beat running? The gpu workers' logs have 'ticks fail' or 'ticks are not passed on'",
        )


def _prices(marks: MarksState) -> Iterator[Problem]:
    if missing := marks.totals.missing:
        yield Problem(
            what=f"open trades in {_named(missing)} have no price: they are in no figure",
            cure="let a feed set their prices; a stored one that is no price is in the gpu worker's log",
        )
    if stale := marks.totals.stale:
        yield _stale(stale)


def _stale(stale: Mapping[str, float]) -> Problem:
    oldest = sorted(stale, key=stale.__getitem__, reverse=True)
    return Problem(
        what=f"open trades in {_named(oldest)} are marked at a price up to {stale[oldest[0]]:,.0f} s old",
        cure="look at the feed that sends their prices, or raise TRADEPOOL_PRICE_MAX_AGE_S",
    )


def _counted(counts: Mapping[str, int]) -> str:
    """What there is most of first."""
    most = sorted(counts, key=lambda name: (-counts[name], name))
    return _named([f"{name} ({counts[name]:,})" for name in most])


def _named(names: Sequence[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
