"""One look at a running fleet: queues, journal, last audit, last marks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
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


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong, and what to do about it."""

    what: str
    cure: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pool and its fleet at one moment.

    `journal_lag` counts outbox entries that are not journaled yet; `records` is what the journal
    holds; `last_audit` and `last_marks` are as their tasks left them, None before the first;
    `marks_age_s` is how long ago the prices of those marks were.
    """

    server: str
    is_fenced: bool
    queues: dict[str, int]
    journal_lag: int
    records: int
    last_audit: dict[str, Any] | None
    last_marks: dict[str, Any] | None
    marks_age_s: float | None
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
    )
    return msgspec.structs.replace(health, problems=tuple(_problems(health)))


def _queue_depths(sender: ChangeSender, devices: int) -> dict[str, int]:
    queues = dict.fromkeys((*wire.QUEUES, *wire.device_queues(devices), wire.QUEUE_DEAD))
    return {queue: sender.backlog(queue) for queue in queues}


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
