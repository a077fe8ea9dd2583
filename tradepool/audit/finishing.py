"""What follows an audit: repairs are planned or carried out, and the report is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from tradepool.audit.report import AuditReport, Finding, RepairStep

__all__ = ["Finishing", "Repairs", "Reports"]


class Repairs(Protocol):
    """What an audit asks of repairs; of one user where he is named."""

    def plan(self, findings: Iterable[Finding], *, user_id: str | None = None) -> tuple[RepairStep, ...]:
        """What would be written because of `findings`; writes nothing."""

    def carry_out(self, findings: Iterable[Finding], *, user_id: str | None = None) -> tuple[RepairStep, ...]:
        """Look at each again and write what is safe; the steps as they ended."""

    def quarantine(self, findings: Iterable[Finding]) -> tuple[RepairStep, ...]:
        """Only set apart the trades that nothing may change any more."""


class Reports(Protocol):
    """Where reports are kept."""

    def keep(self, report: AuditReport) -> AuditReport:
        """Keep the report of one audit; the report as it is kept, with the pool's figures.

        Kept twice under one `run_id` it is there once.
        """

    def last(self) -> dict[str, Any] | None:
        """The newest report that was kept, as JSON-able data."""


class Finishing:
    """Ends audits; done again for one audit it changes nothing more."""

    def __init__(self, repairs: Repairs, reports: Reports) -> None:
        self._repairs = repairs
        self._reports = reports

    def repaired(
        self, report: AuditReport, *, repair: bool, quarantine: bool = False, user_id: str | None = None
    ) -> AuditReport:
        """The report with what was repaired, or what a repair would write."""
        if repair:
            steps = self._repairs.carry_out(report.findings, user_id=user_id)
        elif quarantine:
            steps = self._repairs.quarantine(report.findings)
        else:
            steps = self._repairs.plan(report.findings, user_id=user_id)
        return msgspec.structs.replace(report, repairs=steps)

    def kept(self, report: AuditReport) -> AuditReport:
        """The report as it is kept."""
        return self._reports.keep(report)

    def last(self) -> dict[str, Any] | None:
        """The newest report that was kept, as JSON-able data; None before the first."""
        return self._reports.last()
