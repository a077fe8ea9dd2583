"""Having the audit workers of the fleet do an audit, and waiting for its report."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec

from tradepool import wire
from tradepool.audit.parts.run_board import Ended, RunningAudit
from tradepool.audit.report import AuditReport
from tradepool.broker import ChangeSender
from tradepool.cli.output import progress_bar
from tradepool.errors import StoreUnavailable
from tradepool.pool import TradePool

__all__ = ["audited_by_fleet"]

_POLL_S = 0.2
_RUN_ID_BYTES = 8


def audited_by_fleet(pool: TradePool, asked: dict[str, Any]) -> AuditReport:
    """The report of an audit that is `asked` for as the task takes it; waits for it, with a bar on stderr.

    Whoever stops waiting stops nothing. Raises: StoreUnavailable, also when it never becomes a report.
    """
    run_id = secrets.token_hex(_RUN_ID_BYTES)
    with ChangeSender(pool.settings) as sender:
        sender.call(wire.QUEUE_AUDIT, wire.CHECK_ALL_TRADES, [], kwargs={**asked, "run_id": run_id})
    with progress_bar(f"audit {run_id} by the fleet's audit workers") as show:
        has_begun = False
        while True:
            found = pool.get_audit_progress(run_id)
            if isinstance(found, Ended):
                return _report_of(run_id, found)
            if isinstance(found, RunningAudit) and not found.lost:
                has_begun = True
                show(found.done, found.parts)
            elif found is not None or has_begun:
                raise _lost(run_id, "nobody has gone on with it; see 'tradepool replay-dead --list'")
            time.sleep(_POLL_S)


def _report_of(run_id: str, ended: Ended) -> AuditReport:
    if ended.report is None:
        raise _lost(run_id, ended.problem)
    return msgspec.convert(ended.report, AuditReport)


def _lost(run_id: str, problem: str) -> StoreUnavailable:
    return StoreUnavailable(f"audit {run_id} never became a report: {problem}; start another one")
