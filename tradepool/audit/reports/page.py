"""The page of all kept reports: one HTML file that loads nothing, on any screen, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from tradepool.audit.report import Severity
from tradepool.audit.reports import course
from tradepool.audit.reports.course import History
from tradepool.audit.reports.figures import BOOK_PNL, LAG_COMMITS, LAG_US, OPEN_TRADES, RECORDS
from tradepool.audit.reports.kept import KeptReport, ReportBrief
from tradepool.audit.reports.plots import Plot, Span, plot
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Repair
from tradepool.printable import printable

__all__ = ["page_of"]

REPORTS_LISTED_MAX = 15
"""Reports in the table of the latest ones."""
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_US_PER_S = 1_000_000


class Rule(NamedTuple):
    """A rule with findings: how many, what it asks for, and what a repair would do."""

    name: str
    severity: str
    findings: int
    meaning: str
    repair: str


def page_of(history: History, *, pool: str, now_us: int) -> str:
    """The page, as of `now_us`; `pool` is what the pool is called."""
    briefs = history.briefs
    newest = briefs[-1] if briefs else None
    span = Span(briefs[0].started_at, briefs[-1].started_at) if briefs else None
    severities = _sum_of([report.severities for report in history.standing])
    page: str = _template().render(
        pool=pool,
        now_us=now_us,
        standing=history.standing,
        severities=severities,
        state=_state(severities) if briefs else "none",
        tiles=[] if newest is None else _tiles(newest),
        rules=_rules(history.standing),
        latest=briefs[: -REPORTS_LISTED_MAX - 1 : -1],
        kept=len(briefs),
        span=span,
        plots=[] if span is None or span.is_a_moment else _plots(briefs, span),
    )
    return page


def _state(severities: dict[str, int]) -> str:
    """The worst that there is; `fine` where it is no more than a notice."""
    for severity in (Severity.CRITICAL, Severity.WARNING):
        if severities.get(severity):
            return severity
    return "fine"


def _tiles(newest: ReportBrief) -> list[tuple[str, str, str]]:
    """Names, values and units of the pool's figures."""
    figures = newest.figures
    tiles = [
        ("Open trades", _count(figures.get(OPEN_TRADES)), ""),
        ("Records", _count(figures.get(RECORDS)), ""),
        ("Journal behind by", _count(figures.get(LAG_COMMITS)), "commits"),
        ("Oldest waits", *_lag(figures.get(LAG_US))),
    ]
    pnl = [name for name in figures if name.startswith(BOOK_PNL)][: course.CURRENCIES_DRAWN_MAX]
    return tiles + [("Book PnL", _amount(figures[name]), name.removeprefix(BOOK_PNL)) for name in pnl]


def _rules(standing: Sequence[KeptReport]) -> list[Rule]:
    counts = _sum_of([report.counts for report in standing])
    found = [_rule(name, count) for name, count in counts.items()]
    order = [*reversed(Severity), ""]
    return sorted(found, key=lambda rule: (order.index(rule.severity), -rule.findings, rule.name))


def _rule(name: str, count: int) -> Rule:
    known = RULES.get(name)
    if known is None:
        return Rule(name, "", count, "A rule that this release does not know.", Repair.NONE)
    return Rule(name, known.severity, count, known.meaning, known.repair)


def _plots(briefs: Sequence[ReportBrief], span: Span) -> list[Plot]:
    return [
        plot("Findings by severity", "that stand", course.by_severity(briefs), span, is_stepped=True),
        plot("Findings by rule", "that stand", course.by_rule(briefs), span, is_stepped=True),
        plot("Journal lag", "ms the oldest commit waits", course.journal_lag(briefs), span),
        plot("Duration of audits", "s, logarithmic", course.durations(briefs), span, is_logarithmic=True),
        *(plot("Book PnL", one.name, [one], span) for one in course.book_pnl(briefs)),
    ]


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("tradepool.audit.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"time": _time, "took": _took, "count": _count}
    return environment.get_template("page.html.jinja")


def _shown(value: Any) -> Any:
    """What a user wrote is shown, and does nothing: neither as markup nor as a character that steers."""
    return printable(value) if type(value) is str else value


def _sum_of(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // _US_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _took(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S:.0f} min {seconds % _MINUTE_S:02.0f} s"
    return f"{seconds // _HOUR_S:.0f} h {seconds % _HOUR_S // _MINUTE_S:02.0f} min"


def _lag(lag_us: object) -> tuple[str, str]:
    if not isinstance(lag_us, int):
        return "-", ""
    if lag_us < _US_PER_S:
        return f"{lag_us / 1000:,.1f}".removesuffix(".0"), "ms"
    return f"{lag_us / _US_PER_S:,.1f}", "s"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _amount(value: float | str) -> str:
    """Thousands set apart, two places; the report has all of them."""
    try:
        return f"{float(value):,.2f}"
    except ValueError:
        return str(value)
