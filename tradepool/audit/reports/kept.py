"""The form in which reports are kept; what earlier releases wrote reads as well.

The file of a report has all of it. Redis has the worst findings of each, so that no number of faults, and
nothing that a user wrote, makes a value that is too large to be read all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import msgspec

from tradepool.audit.report import AuditReport, Finding, RepairStep, by_severity, severities_of
from tradepool.errors import Corrupt
from tradepool.logger import Logger
from tradepool.model.times import iso_time
from tradepool.store.audit_reports import ReportName

__all__ = [
    "FINDINGS_MAX",
    "KeptReport",
    "ReportBrief",
    "kept_form",
    "read_brief",
    "read_report",
    "readable",
    "surplus",
]

log = Logger(__name__)

FINDINGS_MAX = 100
"""Findings and repairs of a report in Redis, of each; the worst come first."""
UNDECIDED_MAX = 20
FIGURES_MAX = 200
TEXT_CHARS_MAX = 300
"""Characters of a text in Redis; longer ones end in `…`."""

Row = TypeVar("Row", Finding, RepairStep)


class ReportBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A kept report without its findings, repairs and undecided subjects."""

    level: str
    started_at: int
    """µs since 1970."""
    duration_s: float
    started: str = ""
    """The same moment as `started_at` in words, UTC."""
    run_id: str = ""
    ok: bool = True
    checked: dict[str, int] = {}
    counts: dict[str, int] = {}
    """Rule → all its findings."""
    severities: dict[str, int] = {}
    """Severity → all findings of it."""
    totals: dict[str, int] = {}
    """`findings`, `repairs`, `undecided`: how many there are in all."""
    new_critical: int = 0
    """Critical findings that no report before had; a page was sent for these."""
    figures: dict[str, int | str] = {}

    @property
    def name(self) -> ReportName:
        """How the report is called among the kept ones."""
        return ReportName(self.started_at, self.level, self.run_id)


class KeptReport(ReportBrief, frozen=True, kw_only=True):
    """A kept report; in Redis its lists are cut, `totals` says how long they are."""

    findings: tuple[Finding, ...] = ()
    repairs: tuple[RepairStep, ...] = ()
    undecided: tuple[str, ...] = ()
    news: tuple[Finding, ...] = ()
    """The new critical findings, or the first of them."""

    @classmethod
    def of(cls, report: AuditReport, news: Sequence[Finding]) -> Self:
        """All of `report`, in which `news` are the critical findings that are new."""
        counts = {"findings": report.findings, "repairs": report.repairs, "undecided": report.undecided}
        return cls(
            **{name: getattr(report, name) for name in report.__struct_fields__},
            started=iso_time(report.started_at),
            ok=report.ok,
            counts=report.counts,
            severities=report.severities,
            totals={name: len(rows) for name, rows in counts.items()},
            new_critical=len(news),
            news=tuple(news),
        )

    def cut(self) -> KeptReport:
        """What Redis keeps of it: bounded, the worst findings first."""
        return msgspec.structs.replace(
            self,
            findings=_short(by_severity(self.findings)),
            repairs=_short(self.repairs),
            undecided=tuple(map(_short_text, self.undecided[:UNDECIDED_MAX])),
            news=_short(self.news),
            figures=dict(list(self.figures.items())[:FIGURES_MAX]),
        )

    def encode(self) -> bytes:
        """The report as JSON; what is no Unicode in a text, and cannot be in JSON, as an escape."""
        try:
            return msgspec.json.encode(self)
        except UnicodeEncodeError:
            return msgspec.json.encode(_encodable(msgspec.to_builtins(self)))


_BRIEFS = msgspec.json.Decoder(ReportBrief)
_REPORTS = msgspec.json.Decoder(KeptReport)


def read_brief(value: bytes) -> ReportBrief:
    """The brief form of a kept report. Raises: Corrupt when it is none."""
    return _read(_BRIEFS, value)


def read_report(value: bytes) -> KeptReport:
    """A kept report, completed where an earlier release kept less. Raises: Corrupt when it is none."""
    report = _read(_REPORTS, value)
    if report.totals:
        return report
    return msgspec.structs.replace(
        report,
        started=iso_time(report.started_at),
        severities=severities_of(report.findings),
        totals={
            "findings": sum(report.counts.values()),
            "repairs": len(report.repairs),
            "undecided": len(report.undecided),
        },
    )


def kept_form(report: KeptReport) -> dict[str, Any]:
    """The report as JSON-able data."""
    form: dict[str, Any] = msgspec.json.decode(report.encode())
    return form


Kept = TypeVar("Kept", ReportBrief, KeptReport)


def readable(values: Iterable[bytes | None], read: Callable[[bytes], Kept]) -> list[Kept]:
    """Those that are there and can be read: one of a later release may say what this one does not know."""
    found = []
    for value in values:
        if value is not None:
            try:
                found.append(read(value))
            except Corrupt as problem:
                log.warning("a kept report cannot be read", problem=str(problem))
    return found


def surplus(names: list[ReportName], kept: int) -> list[ReportName]:
    """What is more than `kept` of a level, of names from old to new."""
    of_level: dict[str, list[ReportName]] = {}
    for name in names:
        of_level.setdefault(name.level, []).append(name)
    return [name for same in of_level.values() for name in same[: max(0, len(same) - kept)]]


def _read(decoder: msgspec.json.Decoder[Kept], value: bytes) -> Kept:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise Corrupt(f"no report of an audit: {problem}") from problem


def _short(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(
        msgspec.structs.replace(row, subject=_short_text(row.subject), detail=_short_text(row.detail))
        for row in rows[:FINDINGS_MAX]
    )


def _short_text(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[: TEXT_CHARS_MAX - 1]}…"


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
    return value
