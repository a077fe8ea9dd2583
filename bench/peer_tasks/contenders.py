"""Who is compared: how its workers are started, how many items it gets, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CONTENDERS", "PROCESSES", "THREADS", "Contender"]

PROCESSES = 3
THREADS = 8
"""As many as a worker of the fleet has."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to get a trade onto the disk."""

    name: str
    app: str
    """A module of this folder, with `enqueue`."""
    workers: tuple[tuple[str, ...], ...]
    """For each program: what follows `python -m`."""
    items: int
    acknowledged: str
    """When the broker forgets an item."""
    when_killed: str
    """What happens to the items that a killed worker had."""
    variables: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False


_TUNED = {"PEERS_TUNED": "1"}
_QUIET = ("--loglevel", "ERROR")
_BEFORE = "before the task runs"
_AFTER_ITS_SYNC = "after its sync"
_LOST = "lost: what it was running"
_LOST_PREFETCHED = "lost: what it was running; prefetched ones come again after an hour"
_AFTER_A_LOOK = (
    "comes again when one command in a thousand looks, a minute later or more; "
    "written twice if it was written"
)
_AFTER_TEN_MINUTES = "comes again after ten minutes, written twice if it was written"


def _fleet(name: str, *, is_chunked: bool, transport: str, items: int) -> Contender:
    worker = ("celery", "-A", "tasks", "worker", *_QUIET, "-P", "threads", "-c")
    writers = PROCESSES - 1
    return Contender(
        name=name,
        app="pool_app",
        workers=(
            (*worker, "2", "-Q", "files", "-n", "files@%h"),
            *((*worker, str(THREADS), "-Q", "trades", "-n", f"trades{n}@%h") for n in range(writers)),
        ),
        items=items,
        acknowledged="after the journal's sync, in one order, once each",
        when_killed="comes again, applied once; client and server may die as well",
        variables={"PEERS_CHUNKED": str(int(is_chunked)), "TRADEPOOL_BROKER_TRANSPORT": transport},
        is_ours=True,
    )


def _celery(*options: str, name: str = "peer@%h") -> tuple[str, ...]:
    return ("celery", "-A", "bench.peer_tasks.celery_app", "worker", *_QUIET, "-n", name, *options)


def _celery_tuned(number: int) -> tuple[str, ...]:
    silent = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return _celery("-P", "threads", "-c", str(THREADS), *silent, name=f"peer{number}@%h")


def _huey(kind: str, workers: int, *options: str) -> tuple[str, ...]:
    consumer = ("huey.bin.huey_consumer", "bench.peer_tasks.huey_app.huey")
    return (*consumer, "-k", kind, "-w", str(workers), "-q", *options)


_DRAMATIQ = ("dramatiq", "bench.peer_tasks.dramatiq_app", "-p", str(PROCESSES), "-t", str(THREADS))
_TASKIQ = ("taskiq", "worker", "bench.peer_tasks.taskiq_app:broker", "--workers", str(PROCESSES))
_RQ = ("rq.cli", "worker-pool", "-q", "-n", str(PROCESSES))

CONTENDERS = (
    _fleet("tradepool, chunks", is_chunked=True, transport="atomic", items=20_000),
    _fleet("tradepool, a message per trade", is_chunked=False, transport="atomic", items=2_000),
    _fleet("tradepool, a message per trade, celery take", is_chunked=False, transport="celery", items=2_000),
    Contender(
        name="celery",
        app="celery_app",
        workers=(_celery("-c", str(PROCESSES)),),
        items=1_500,
        acknowledged=_BEFORE,
        when_killed=_LOST_PREFETCHED,
    ),
    Contender(
        name="celery, tuned",
        app="celery_app",
        workers=tuple(_celery_tuned(number) for number in range(PROCESSES)),
        items=2_000,
        acknowledged=_BEFORE,
        when_killed=_LOST_PREFETCHED,
        variables=_TUNED,
    ),
    Contender(
        name="dramatiq",
        app="dramatiq_app",
        workers=(_DRAMATIQ,),
        items=2_000,
        acknowledged=_AFTER_ITS_SYNC,
        when_killed=_AFTER_A_LOOK,
    ),
    Contender(
        name="dramatiq, tuned",
        app="dramatiq_app",
        workers=(_DRAMATIQ,),
        items=2_000,
        acknowledged=_AFTER_ITS_SYNC,
        when_killed=_AFTER_A_LOOK,
        variables=_TUNED,
    ),
    Contender(
        name="taskiq",
        app="taskiq_app",
        workers=(_TASKIQ,),
        items=2_000,
        acknowledged=_AFTER_ITS_SYNC,
        when_killed=_AFTER_TEN_MINUTES,
    ),
    Contender(
        name="taskiq, tuned",
        app="taskiq_app",
        workers=(_TASKIQ,),
        items=4_000,
        acknowledged=_AFTER_ITS_SYNC,
        when_killed=_AFTER_TEN_MINUTES,
        variables=_TUNED,
    ),
    Contender(
        name="huey",
        app="huey_app",
        workers=(_huey("process", PROCESSES),),
        items=2_000,
        acknowledged=_BEFORE,
        when_killed=_LOST,
    ),
    Contender(
        name="huey, tuned",
        app="huey_app",
        workers=tuple(_huey("thread", THREADS, "-n") for _ in range(PROCESSES)),
        items=4_000,
        acknowledged=_BEFORE,
        when_killed=_LOST,
        variables=_TUNED,
    ),
    Contender(
        name="rq",
        app="rq_app",
        workers=(_RQ,),
        items=120,
        acknowledged=_BEFORE,
        when_killed=(
            "its child finishes the job; killed as well: marked as failed later, nobody runs it again"
        ),
    ),
    Contender(
        name="rq, tuned",
        app="rq_app",
        workers=((*_RQ, "-w", "rq.SimpleWorker"),),
        items=1_000,
        acknowledged=_BEFORE,
        when_killed="marked as failed later; nobody runs it again",
        variables=_TUNED,
    ),
)
