"""What an audit found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "AUDITS_NAME",
    "AuditReport",
    "Finding",
    "RepairState",
    "RepairStep",
    "Severity",
    "by_severity",
    "severities_of",
    "shown",
]

AUDITS_NAME = "audits"
"""The folder beside the journal that reports, the log of repairs and work files are in."""


class Severity(StrEnum):
    """How bad a finding is: `critical` means the books cannot be trusted there.

    A `notice` says only that something is old or told otherwise, which may be as it should: it leaves the
    report `ok`.
    """

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


_WORST_FIRST = list(reversed(Severity))


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One rule broken by one subject: a trade, a user, a shard or a file."""

    rule: str
    severity: Severity
    subject: str
    detail: str


class RepairState(StrEnum):
    """How far a repair has come."""

    PLANNED = "planned"
    """What a repair would write; nothing was written."""
    DONE = "done"
    REFUSED = "refused"
    """What was found had changed before the repair, or could not be written; `detail` says which."""


class RepairStep(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One thing that a repair writes, or would write."""

    action: str
    """What is done, in the words of the rules: a value of `registry.Repair`."""
    subject: str
    detail: str
    """What is written, in words: from which value to which."""
    state: RepairState


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of one audit.

    `level` is `digest`, `standard` or `deep`; `started_at` is µs; `checked` counts what was compared
    (trades, ledgers, shards); `undecided` names what changed too fast to be compared this time. `figures`
    are what the pool stood at meanwhile, by name: integers, or amounts as text. `run_id` names the audit.
    """

    level: str
    started_at: int
    duration_s: float
    checked: dict[str, int]
    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()
    run_id: str = ""
    figures: dict[str, int | str] = {}
    repairs: tuple[RepairStep, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found but notices."""
        return all(finding.severity is Severity.NOTICE for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by rule."""
        return dict(Counter(finding.rule for finding in self.findings))

    @property
    def severities(self) -> dict[str, int]:
        """Findings by severity, the worst first."""
        return severities_of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data, with `ok`, `counts` and `severities`."""
        return {
            **msgspec.to_builtins(self),
            "ok": self.ok,
            "counts": self.counts,
            "severities": self.severities,
        }


def shown(name: str) -> str:
    """The name of a record, or of a claim, as findings have it."""
    return name.replace("\x1f", "/")


def severities_of(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each severity that occurs, the worst first."""
    counts = Counter(finding.severity for finding in findings)
    return {str(severity): counts[severity] for severity in _WORST_FIRST if severity in counts}


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, the worst first, else in their order."""
    return sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.severity))
