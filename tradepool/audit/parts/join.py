"""What the parts of a run have found, put together to one report."""

from __future__ import annotations

from tradepool.audit.parts.part import Run
from tradepool.audit.parts.stages import Answers
from tradepool.audit.report import AuditReport

__all__ = ["joined"]

_US_PER_S = 1_000_000


def joined(run: Run, answers: Answers, *, now_us: int) -> AuditReport:
    """The report of a run whose parts are all answered; the same finding by two ways is one."""
    in_order = [answer for _, answer in sorted(answers.items())]
    checked = {"shards": sum(map(len, run.groups)), "records": sum(answer.records for answer in in_order)}
    if run.venue is not None:
        checked["venue"] = 1
    return AuditReport(
        run_id=run.audit_id,
        level=run.level,
        started_at=run.started_at,
        duration_s=(now_us - run.started_at) / _US_PER_S,
        checked=checked,
        findings=tuple(sorted({finding for answer in in_order for finding in answer.findings})),
        undecided=tuple(dict.fromkeys(text for answer in in_order for text in answer.undecided)),
    )
