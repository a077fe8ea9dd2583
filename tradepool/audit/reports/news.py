"""Which critical findings are new, so that one fault pages once and a fault that comes back pages again.

What is not in a report is gone only if the report looked at least as deep at it: a digest report says
nothing of a record that the deep one before it found. So a known finding belongs to the level of the
shallowest report that has it. Findings about sums and the book are looked at by every report, those about
venues by every one that was given a venue's figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tradepool.audit.report import AuditReport, Finding, Severity
from tradepool.audit.rules import venue_rules
from tradepool.audit.rules.catalogue import RULES
from tradepool.audit.rules.key_rules import key_value
from tradepool.audit.rules.registry import Level

__all__ = ["KNOWN_MAX", "VENUE", "News", "compare", "looks_at", "told_by"]

KNOWN_MAX = 10_000
"""Critical findings of a report that are looked at; where there are more, nobody misses these."""
VENUE = "venue"
"""In `AuditReport.checked`: that a venue's figures were compared."""

_SUBJECT_CHARS_MAX = 300
_SEPARATOR = "\x1f"
_VENUE_RULES = frozenset(
    rule.name for rule in RULES.values() if rule.check.__module__ == venue_rules.__name__
)
_ALWAYS_LOOKED_AT = frozenset(
    rule.name
    for rule in RULES.values()
    # Deeper levels look at more keys than the digest level does.
    if rule.level is Level.DIGEST and rule is not key_value and rule.name not in _VENUE_RULES
)


class News(NamedTuple):
    """What a report changes in what is known."""

    new: tuple[Finding, ...]
    """Critical findings that were not known."""
    put: dict[str, str]
    """All critical findings of the report, as they are to be known."""
    drop: list[str]
    """What was known and is gone."""

    def without_new(self) -> News:
        """The same if nobody could be told of the new ones: the next report that has them has to."""
        untold = set(map(_name, self.new))
        return News((), {name: known for name, known in self.put.items() if name not in untold}, self.drop)


class _Known(NamedTuple):
    level: Level
    since: int
    """When the last report that has it began, µs: one that began earlier cannot know better."""
    run_id: str
    """The audit whose page told of it; empty where it is in the log alone, for want of a webhook."""

    def written(self) -> str:
        return f"{self.level}:{self.since}:{self.run_id}"

    @classmethod
    def of(cls, written: str) -> _Known:
        """What was written by this release, or nothing that can be relied on."""
        level, _, rest = written.partition(":")
        since, _, run_id = rest.partition(":")
        try:
            return cls(Level(level), int(since), run_id)
        except ValueError:
            return cls(Level.DEEP, 0, run_id)


def compare(report: AuditReport, stored: Mapping[str, str], *, can_page: bool) -> News:
    """What `report` tells that is new, against what is known (`RedisStore.known_critical`).

    `can_page`: there is somebody to page. To him also that is new which was only logged where there was
    nobody, by an audit that a person ran in a shell of his own, for example.
    """
    known = {name: _Known.of(written) for name, written in stored.items()}
    found = _critical(report.findings)
    level = _level(report.level)
    put = {}
    for name, finding in found.items():
        before = known.get(name, _Known(level, 0, ""))
        shallowest = min(before.level, level, key=list(Level).index)
        put[name] = _Known(
            Level.DIGEST if finding.rule in _ALWAYS_LOOKED_AT else shallowest,
            max(before.since, report.started_at),
            before.run_id or (report.run_id if can_page else ""),
        ).written()
    gone = [name for name in known.keys() - found.keys() if _is_looked_at(name, known[name], report)]
    new = [
        finding
        for name, finding in found.items()
        if name not in known or (can_page and not known[name].run_id)
    ]
    return News(tuple(new), put, gone)


def looks_at(rule: str, found_at: str, level: str, *, has_venue: bool) -> bool:
    """Whether an audit of `level` looks again at what one of level `found_at` found by `rule`.

    `has_venue`: it compares a venue's figures.
    """
    if rule in _VENUE_RULES:
        return has_venue
    return rule in _ALWAYS_LOOKED_AT or _level(found_at) in _level(level).runs


def told_by(run_id: str, stored: Mapping[str, str]) -> list[str]:
    """The known findings that the page of this audit told of."""
    return [name for name, written in stored.items() if _Known.of(written).run_id == run_id]


def _critical(findings: Iterable[Finding]) -> dict[str, Finding]:
    critical = [finding for finding in findings if finding.severity is Severity.CRITICAL]
    return {_name(finding): finding for finding in critical[:KNOWN_MAX]}


def _name(finding: Finding) -> str:
    subject = finding.subject[:_SUBJECT_CHARS_MAX].encode(errors="backslashreplace").decode()
    return f"{finding.rule}{_SEPARATOR}{subject}"


def _is_looked_at(name: str, known: _Known, report: AuditReport) -> bool:
    rule = name.partition(_SEPARATOR)[0]
    return known.since < report.started_at and looks_at(
        rule, known.level, report.level, has_venue=VENUE in report.checked
    )


def _level(name: str) -> Level:
    """A level of this release; what another one calls otherwise has looked at the least."""
    try:
        return Level(name)
    except ValueError:
        return Level.DIGEST
