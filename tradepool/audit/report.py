"""What an audit found."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any

import msgspec

__all__ = ["AuditReport", "Finding", "Severity"]


class Severity(StrEnum):
    """How bad a finding is: `critical` means the books cannot be trusted there.

    A `notice` says only that something is old or told otherwise, which may be as it should: it leaves the
    report `ok`.
    """

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One rule broken by one subject: a trade, a user, a shard or a file."""

    rule: str
    severity: Severity
    subject: str
    detail: str


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of one audit.

    `level` is `digest`, `standard` or `deep`; `started_at` is µs; `checked` counts what was compared
    (trades, ledgers, shards); `undecided` names what changed too fast to be compared this time.
    """

    level: str
    started_at: int
    duration_s: float
    checked: dict[str, int]
    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found but notices."""
        return all(finding.severity is Severity.NOTICE for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by rule."""
        return dict(Counter(finding.rule for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data, with `ok` and `counts`."""
        return {**msgspec.to_builtins(self), "ok": self.ok, "counts": self.counts}
