"""Tasks that check the pool against itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from tasks.app import app
from tasks.pool_task import PoolTask, WriteTask
from tradepool import wire
from tradepool.audit.report import AuditReport
from tradepool.audit.rules.registry import Level
from tradepool.errors import Misconfigured, Unavailable
from tradepool.logger import Logger

__all__ = ["check_all_trades", "check_part", "check_trades"]

log = Logger(__name__)

_PART_PRIORITY = 6
"""Redis takes lower numbers first: a tick of the digest level passes the parts of a deep audit."""
_PAUSE_S = 1.0
"""Before a message goes back to the queue, which gives it to somebody at once."""
_RUN_ID_BYTES = 8


@app.task(base=PoolTask, bind=True, name=wire.CHECK_ALL_TRADES)
def check_all_trades(
    self: PoolTask,
    deep: bool = False,  # noqa: FBT001, FBT002 - a message's arguments
    repair: bool = False,  # noqa: FBT001, FBT002
    level: str | None = None,
    venue: Any = None,
    run_id: str | None = None,
    quarantine: bool = False,  # noqa: FBT001, FBT002
) -> dict[str, Any]:
    """Audit the pool: the digests of store and journal, and the records where these differ; or more deeply.

    Whoever names a level, a `run_id` or anything else has the audit workers do it together (`check_part`),
    and finds how far they are in the pool's running audits. With `quarantine` and the setting
    `audit_quarantine` trades that nothing may change any more are set apart.
    """
    quarantine = quarantine and app.settings.audit_quarantine
    if not (deep or repair or level or venue or run_id):
        app.services.audit.sweep()
        return _told(app.services.audit.watch(quarantine=quarantine))
    name = run_id or _run_id(self.request.id)
    wanted = level or (Level.DEEP if deep else Level.DIGEST)
    with _given_back():
        app.services.audit.start(name, _send, level=wanted, repair=repair, quarantine=quarantine, venue=venue)
    return {"level": wanted, "run_id": name}


@app.task(base=WriteTask, name="tasks.audit.check_part")
def check_part(run_id: str, part: str) -> None:
    """Do one part of an audit of the whole pool, and what follows from it."""
    with _given_back():
        app.services.audit.check_part(run_id, part, _send)


@app.task(base=PoolTask, name="tasks.audit.check_trades")
def check_trades(user_id: str, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - a message's arguments
    """Audit one user's records, indexes, counters and computed figures."""
    return _told(app.trade_pool.check_trades(user_id, deep=deep))


def _send(run_id: str, parts: Sequence[str]) -> None:
    for part in parts:
        check_part.apply_async(args=[run_id, part], priority=_PART_PRIORITY)


@contextmanager
def _given_back() -> Iterator[None]:
    """What cannot be done now is done again, by whoever takes it: another worker may be able to."""
    try:
        yield
    except (Unavailable, Misconfigured, OperationalError) as problem:
        log.warning("an audit waits", problem=f"{type(problem).__name__}: {problem}")
        app.stopping.wait(_PAUSE_S)
        raise Reject(problem, requeue=True) from problem


def _run_id(task_id: str | None) -> str:
    """The same for a message that is delivered again."""
    return hashlib.blake2b((task_id or "").encode(), digest_size=_RUN_ID_BYTES).hexdigest()


def _told(report: AuditReport) -> dict[str, Any]:
    """Findings are logged where they are found: nobody waits for the answer of a periodic audit."""
    if not report.ok:
        log.error("audit found differences", counts=dict(report.counts))
    return {
        "level": report.level,
        "ok": report.ok,
        "counts": dict(report.counts),
        "findings": len(report.findings),
    }
