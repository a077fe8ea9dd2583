"""One look at a running fleet: queues, journal, last audit, last marks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.clock import now_us
from tradepool.pool import TradePool
from tradepool.store import fence
from tradepool.store.address import shown

__all__ = ["Health", "Problem", "read_health"]

_US_PER_S = 1_000_000
LAG_ENTRIES_MAX = 10_000
"""Outbox entries that wait for the journal beyond this are a problem."""
MARKS_AGE_MIN_S = 15.0
MARKS_LATE_TICKS = 5
"""Marks are old after this many ticks without any, and never before MARKS_AGE_MIN_S."""
GPU_WAITING_MAX = 50
"""Messages on a gpu queue beyond this are a problem: its worker drops what is old at once."""
NAMED_MAX = 3
"""Symbols that a problem names."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong, and what to do about it."""

    what: str
    cure: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pool and its fleet at one moment.

    `journal_lag` counts outbox entries that are not journaled yet; `records` is what the journal
    holds; `last_audit` and `last_marks` are as their tasks left them, None before the first;
    `marks_age_s` is how long ago the prices of those marks were; `book_differences` counts where the book
    that is marked and the store differed at the last check.
    """

    server: str
    is_fenced: bool
    queues: dict[str, int]
    journal_lag: int
    records: int
    last_audit: dict[str, Any] | None
    last_marks: dict[str, Any] | None
    marks_age_s: float | None
    book_differences: int
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def read_health(pool: TradePool, sender: ChangeSender | None) -> Health:
    """Look at the server, the journal, and the queues as `sender` sees them (None: there is no fleet).

    Raises: StoreUnavailable; Misconfigured when a server refuses us.
    """
    marks = pool.get_mark_totals()
    health = Health(
        server=shown(pool.settings.redis_url),
        is_fenced=not fence.is_open(pool.redis),
        queues={} if sender is None else _queue_depths(sender, pool.settings.pnl_devices),
        journal_lag=sum(pool.store.outbox_lengths()),
        records=sum(shard.count for shard in pool.store.journaled_shards()),
        last_audit=pool.get_last_audit(),
        last_marks=marks,
        marks_age_s=None if marks is None else (now_us() - marks["at"]) / _US_PER_S,
        book_differences=sum(
            msgspec.json.decode(report, type=_BookReport).different for report in pool.store.read_book_check()
        ),
    )
    problems = [*_problems(health)]
    if sender is not None:
        # Without a fleet marks are made when somebody asks for them, at the prices he gives.
        problems += _marks_problems(health, pool.settings.mark_every_s)
    return msgspec.structs.replace(health, problems=tuple(problems))


def _queue_depths(sender: ChangeSender, devices: int) -> dict[str, int]:
    queues = dict.fromkeys((*wire.QUEUES, *wire.device_queues(devices), wire.QUEUE_DEAD))
    return {queue: sender.backlog(queue) for queue in queues}


class _BookReport(msgspec.Struct):
    different: int


def _problems(health: Health) -> Iterator[Problem]:
    if health.is_fenced:
        yield Problem(
            what="the store takes no writes: it waits for recovery",
            cure="start the files worker ('tradepool up'), or run 'tradepool recover'",
        )
    if health.journal_lag > LAG_ENTRIES_MAX:
        yield Problem(
            what=f"{health.journal_lag} commits wait for the journal", cure="look at the files worker's log"
        )
    if dead := health.queues.get(wire.QUEUE_DEAD):
        yield Problem(
            what=f"{dead} dead letters are parked", cure="look at their reasons on the queue 'dead'"
        )
    if health.last_audit and not health.last_audit["ok"]:
        yield Problem(
            what=f"the last audit found {health.last_audit['counts']}",
            cure="run 'tradepool check-all-trades'",
        )


def _marks_problems(health: Health, mark_every_s: float) -> Iterator[Problem]:
    for queue, depth in health.queues.items():
        if queue.partition(".")[0] == wire.QUEUE_GPU and depth > GPU_WAITING_MAX:
            yield Problem(
                what=f"{depth} messages wait on the queue {queue}: no worker takes them",
                cure=f"start the worker of {queue} ('tradepool up'); it drops what is old",
            )
    age_s = health.marks_age_s
    if age_s is not None and age_s > max(MARKS_AGE_MIN_S, MARKS_LATE_TICKS * mark_every_s):
        yield Problem(
            what=f"the marks are {age_s:,.0f} s old, and one is due every {mark_every_s:g} s",
            cure="is beat running? The gpu workers' logs have 'ticks fail' or 'ticks are not passed on'",
        )
    if health.last_marks is not None:
        yield from _prices_problems(health.last_marks)
    if health.book_differences:
        yield Problem(
            what=f"the book that is marked differs from the store in {health.book_differences} trades",
            cure="run 'tradepool check-all-trades' for which; delete book/, restart the gpu worker",
        )


def _prices_problems(marks: dict[str, Any]) -> Iterator[Problem]:
    if missing := marks["missing"]:
        yield Problem(
            what=f"open trades in {_named(missing)} have no price: they are in no figure",
            cure="let a feed set their prices; a stored one that is no price is in the gpu worker's log",
        )
    if stale := marks["stale"]:
        oldest = sorted(stale, key=stale.__getitem__, reverse=True)
        yield Problem(
            what=f"open trades in {_named(oldest)} are marked at a price up to {stale[oldest[0]]:,.0f} s old",
            cure="look at the feed that sends their prices, or raise TRADEPOOL_PRICE_MAX_AGE_S",
        )


def _named(symbols: Sequence[str]) -> str:
    """The first few of `symbols`, and how many more there are."""
    more = len(symbols) - NAMED_MAX
    return ", ".join(symbols[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
