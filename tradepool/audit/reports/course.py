"""How the kept reports went over time, as series of points (µs since 1970, value), and which still stand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tradepool.audit.report import Severity
from tradepool.audit.reports.figures import BOOK_PNL, LAG_US
from tradepool.audit.reports.kept import KeptReport, ReportBrief
from tradepool.audit.reports.news import VENUE, looks_at
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.registry import Level

__all__ = [
    "History",
    "Point",
    "Series",
    "book_pnl",
    "by_rule",
    "by_severity",
    "durations",
    "journal_lag",
    "standing",
]

RULES_DRAWN_MAX = 5
CURRENCIES_DRAWN_MAX = 4
POINTS_MAX = 240
"""Points of one series; of more, each stretch of time is drawn by one."""
OTHERS = "other rules"

Point = tuple[int, float]


class Series(NamedTuple):
    """One line of a plot, oldest point first."""

    name: str
    points: tuple[Point, ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


class History(NamedTuple):
    """What is kept, for the page: all reports in brief, oldest first, and those that say how things stand."""

    briefs: tuple[ReportBrief, ...]
    standing: tuple[KeptReport, ...]
    """The newest report of each level that no later one of a deeper level has overtaken, deepest first."""


def standing(briefs: Iterable[ReportBrief]) -> list[ReportBrief]:
    """The newest report of each level that no later one of a deeper level has overtaken, deepest first."""
    newest = {brief.level: brief for brief in sorted(briefs, key=lambda brief: brief.name)}
    found: list[ReportBrief] = []
    for level in reversed(Level):
        brief = newest.get(level)
        if brief is not None and all(brief.started_at > deeper.started_at for deeper in found):
            found.append(brief)
    return found


def by_rule(briefs: Sequence[ReportBrief]) -> list[Series]:
    """Findings that stand, by rule: the rules that had most, and all others as one."""
    course = list(_standing(briefs))
    most = Counter[str]()
    for _, counts in course:
        most |= Counter(counts)
    ranked = [name for name, count in sorted(most.items(), key=lambda item: (-item[1], item[0])) if count]
    drawn, rest = ranked[:RULES_DRAWN_MAX], ranked[RULES_DRAWN_MAX:]
    series = [_series(name, ((at, counts.get(name, 0)) for at, counts in course)) for name in drawn]
    if rest:
        series.append(
            _series(OTHERS, ((at, sum(counts.get(name, 0) for name in rest)) for at, counts in course))
        )
    return series


def by_severity(briefs: Sequence[ReportBrief]) -> list[Series]:
    """Findings that stand, by severity, the worst first."""
    course = [(at, _severities(counts)) for at, counts in _standing(briefs)]
    return [
        _series(severity, ((at, counts[severity]) for at, counts in course))
        for severity in reversed(Severity)
    ]


def journal_lag(briefs: Iterable[ReportBrief]) -> list[Series]:
    """How long the oldest commit had waited for the journal, ms."""
    points = ((brief.started_at, _number(brief.figures.get(LAG_US))) for brief in briefs)
    return _drawn([_series("journal lag", ((at, lag / 1000) for at, lag in points if lag is not None))])


def book_pnl(briefs: Sequence[ReportBrief]) -> list[Series]:
    """The unrealised profit of all open trades, by currency: those that most reports have."""
    having = Counter(name for brief in briefs for name in brief.figures if name.startswith(BOOK_PNL))
    names = sorted(having, key=lambda name: (-having[name], name))[:CURRENCIES_DRAWN_MAX]
    return _drawn(
        _series(
            name.removeprefix(BOOK_PNL),
            (
                (brief.started_at, value)
                for brief in briefs
                if (value := _number(brief.figures.get(name))) is not None
            ),
            thinned_to=_last,
        )
        for name in names
    )


def durations(briefs: Sequence[ReportBrief]) -> list[Series]:
    """How long audits took, s, by level."""
    return _drawn(
        _series(level, ((brief.started_at, brief.duration_s) for brief in briefs if brief.level == level))
        for level in Level
    )


def _standing(briefs: Iterable[ReportBrief]) -> Iterable[tuple[int, Mapping[str, int]]]:
    """When each report began, and how many findings of each rule stood then.

    What a report did not look at stands as the last one found it that did.
    """
    found: dict[str, tuple[str, int]] = {}
    for brief in briefs:
        has_venue = VENUE in brief.checked
        for rule, (level, _) in list(found.items()):
            if looks_at(rule, level, brief.level, has_venue=has_venue):
                del found[rule]
        found |= {rule: (brief.level, count) for rule, count in brief.counts.items()}
        yield brief.started_at, {rule: count for rule, (_, count) in found.items()}


def _severities(counts: Mapping[str, int]) -> Counter[Severity]:
    severities = Counter[Severity]()
    for name, count in counts.items():
        severities[RULES[name].severity if name in RULES else Severity.WARNING] += count
    return severities


def _drawn(series: Iterable[Series]) -> list[Series]:
    return [one for one in series if one.points]


def _series(
    name: str, points: Iterable[Point], *, thinned_to: Callable[[Sequence[Point]], Point] | None = None
) -> Series:
    kept = list(points)
    choose = thinned_to or _highest
    if len(kept) > POINTS_MAX:
        # The newest one stays as it is: it is what the page says of now.
        newest = kept.pop()
        stretch = -(-len(kept) // (POINTS_MAX - 1))
        kept = [choose(kept[start : start + stretch]) for start in range(0, len(kept), stretch)]
        kept.append(newest)
    return Series(name, tuple(kept))


def _highest(points: Sequence[Point]) -> Point:
    return max(points, key=lambda point: point[1])


def _last(points: Sequence[Point]) -> Point:
    return points[-1]


def _number(value: float | str | None) -> float | None:
    """What a report has as a number to draw; the exact one stays in the report."""
    try:
        number = math.nan if value is None else float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
