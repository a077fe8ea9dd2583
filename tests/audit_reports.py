"""Audit reports of pools whose bots say anything, with clocks that stood still long ago."""

from __future__ import annotations

import inspect

from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.audit.rules.catalogue import all_rules


def contradictions(report: AuditReport) -> list[Finding]:
    """The findings that are more than notices, but for those of rules that compare with the present."""
    about_time = {rule.name for rule in all_rules() if "now_us" in inspect.signature(rule.check).parameters}
    wanted = {rule.name for rule in all_rules() if rule.severity is not Severity.NOTICE} - about_time
    return [finding for finding in report.findings if finding.rule in wanted]
