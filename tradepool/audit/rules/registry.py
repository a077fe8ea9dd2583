"""The register of audit rules: name, severity, when a rule runs, what a repair would do.

A rule is a pure function of what was read: it yields (subject, detail) for every fault that it sees.
Findings carry the names that stand here, and no others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Generic, ParamSpec

from tradepool.audit.report import Finding, Severity, shown
from tradepool.errors import InvalidQuery

__all__ = ["RULES", "Fault", "Level", "Repair", "Rule", "known_level", "rule"]

Given = ParamSpec("Given")
Fault = tuple[str, str]
"""What is at fault, and in what way."""


class Level(StrEnum):
    """How deep an audit looks; each level runs what the one before it does, and more."""

    DIGEST = "digest"
    """Sums that store and journal keep: a few round trips, however many records there are."""
    STANDARD = "standard"
    """Every record of the shards whose sums differ, and every open trade and ledger in use."""
    DEEP = "deep"
    """Every record, read and worked out again, all keys, and the files."""

    @property
    def runs(self) -> frozenset[Level]:
        """The levels whose rules run at this one."""
        levels = list(Level)
        return frozenset(levels[: levels.index(self) + 1])


def known_level(name: object) -> Level:
    """The level of that name. Raises: InvalidQuery when there is none."""
    try:
        return Level(name)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidQuery("no audit level", field="level", value=name, cure=", ".join(Level)) from None


class Repair(StrEnum):
    """What a repair would do about a finding; NONE: a person has to decide."""

    NONE = "none"
    JOURNAL = "rebuild the record from the journal"
    INDEX = "rebuild the index from the records"
    COUNTERS = "count again from the records"
    RELEASE = "release the reservation"
    KEY = "take the key's time limit away"
    SNAPSHOT = "write a new snapshot"
    BOOK = "build the book again from the store"
    ARCHIVE = "restore the day's archive from a backup"
    QUARANTINE = "put the trade in quarantine"


class Rule(Generic[Given]):
    """One rule; called with what it looks at, it gives its findings."""

    __slots__ = ("check", "level", "name", "repair", "severity")

    def __init__(
        self,
        check: Callable[Given, Iterable[Fault]],
        severity: Severity,
        level: Level,
        repair: Repair,
    ) -> None:
        self.check = check
        self.name: str = check.__name__
        self.severity = severity
        self.level = level
        self.repair = repair

    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> list[Finding]:
        """The findings about what is given; none where the rule holds."""
        return [self.finding(*fault) for fault in self.check(*args, **kwargs)]

    def finding(self, subject: str, detail: str) -> Finding:
        """That `subject` breaks this rule."""
        return Finding(rule=self.name, severity=self.severity, subject=shown(subject), detail=detail)

    @property
    def meaning(self) -> str:
        """What the rule asks for, in a sentence or two."""
        return " ".join(inspect.cleandoc(self.check.__doc__ or "").split())


RULES: dict[str, Rule[...]] = {}
"""Every rule by its name; complete once `tradepool.audit.rules` is imported."""


def rule(
    severity: Severity, level: Level, repair: Repair = Repair.NONE
) -> Callable[[Callable[Given, Iterable[Fault]]], Rule[Given]]:
    """Register the function under its own name; `level` is the lowest that runs it."""

    def register(check: Callable[Given, Iterable[Fault]]) -> Rule[Given]:
        made = Rule(check, severity, level, repair)
        assert made.name not in RULES, "two rules of one name"
        RULES[made.name] = made
        return made

    return register
