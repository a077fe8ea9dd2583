"""Tasks that check the pool against itself."""

from __future__ import annotations

from typing import Any

from tasks.app import app
from tasks.pool_task import PoolTask
from tradepool.audit.report import AuditReport
from tradepool.logger import Logger

__all__ = ["check_all_trades", "check_trades"]

log = Logger(__name__)


@app.task(base=PoolTask, name="tasks.audit.check_all_trades")
def check_all_trades(deep: bool = False, repair: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - a message's arguments
    """Audit the pool: the digests of store and journal, and the records where these differ; or (deep) all."""
    if deep or repair:
        return _told(app.trade_pool.check_all_trades(deep=deep, repair=repair))
    return _told(app.services.audit.watch())


@app.task(base=PoolTask, name="tasks.audit.check_trades")
def check_trades(user_id: str, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - a message's arguments
    """Audit one user's records, indexes, counters and computed figures."""
    return _told(app.trade_pool.check_trades(user_id, deep=deep))


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
