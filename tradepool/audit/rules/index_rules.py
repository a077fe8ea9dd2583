"""Rules for what is kept beside the records: indexes, claims, routes, counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tradepool.audit.report import Severity, shown
from tradepool.audit.rules.registry import Fault, Level, Repair, rule

__all__ = [
    "Claim",
    "Listed",
    "claim_extra",
    "claim_missing",
    "index_extra",
    "index_missing",
    "index_order",
    "open_set",
    "quarantine_list",
    "recent_missing",
    "route",
    "summary_fold",
]


class Listed(NamedTuple):
    """A trade and an index, at one moment: whether it is in there, and whether it should be."""

    trade_id: str
    place: str
    """The index, as a finding names it."""
    is_listed: bool
    belongs: bool
    at: float | None = None
    """Where it stands there, and where it should."""
    due: float | None = None
    what: str = "live trade"
    """What may stand there."""


class Claim(NamedTuple):
    """A name that only one trade of a user may use: who holds it, and who uses it."""

    name: str
    holder: str | None
    user: str | None


@rule(Severity.CRITICAL, Level.DEEP, Repair.INDEX)
def index_missing(listed: Listed) -> Iterator[Fault]:
    """A trade stands in its user's and its symbol's index, or no list shows it."""
    if listed.belongs and not listed.is_listed:
        yield listed.trade_id, f"not in {listed.place}"


@rule(Severity.WARNING, Level.DEEP, Repair.INDEX)
def index_extra(listed: Listed) -> Iterator[Fault]:
    """An index names only trades that are there and belong in it."""
    if listed.is_listed and not listed.belongs:
        yield listed.trade_id, f"in {listed.place}, but there is no such {listed.what}"


@rule(Severity.CRITICAL, Level.DEEP, Repair.INDEX)
def index_order(listed: Listed) -> Iterator[Fault]:
    """A trade stands in indexes at the moment of its creation, by which lists are ordered and paged."""
    if listed.is_listed and listed.belongs and listed.at != listed.due:
        yield listed.trade_id, f"at {listed.at} in {listed.place}, not at {listed.due}"


@rule(Severity.CRITICAL, Level.STANDARD, Repair.INDEX)
def open_set(trade_id: str, *, is_open: bool, is_listed: bool) -> Iterator[Fault]:
    """The open trades are exactly those that are listed as open."""
    if is_listed and not is_open:
        yield trade_id, "listed as open, but final"
    elif is_open and not is_listed:
        yield trade_id, "open, but not listed as such"


@rule(Severity.WARNING, Level.DEEP, Repair.INDEX)
def recent_missing(listed: Listed) -> Iterator[Fault]:
    """The newest trades of a shard are among its recent ones, but for those that are archived."""
    if listed.belongs and not listed.is_listed:
        yield listed.trade_id, f"not in {listed.place}"


@rule(Severity.CRITICAL, Level.DEEP, Repair.INDEX)
def quarantine_list(trade_id: str, *, is_quarantined: bool, is_listed: bool) -> Iterator[Fault]:
    """The trades in quarantine are exactly those that are listed as such."""
    if is_listed and not is_quarantined:
        yield trade_id, "listed as in quarantine, but is not"
    elif is_quarantined and not is_listed:
        yield trade_id, "in quarantine, but not listed as such"


@rule(Severity.CRITICAL, Level.DEEP, Repair.INDEX)
def route(trade_id: str, expected: int, found: int | None) -> Iterator[Fault]:
    """An id leads to its user's slot, by the slot that it carries or by its route."""
    if found != expected:
        yield trade_id, f"its id leads to slot {found}, not to its user's"


@rule(Severity.CRITICAL, Level.DEEP, Repair.INDEX)
def claim_missing(claim: Claim) -> Iterator[Fault]:
    """Idempotency keys and venue fills of a trade are claimed for it, or another could use them again."""
    if claim.user is not None and claim.holder is None:
        yield claim.user, f"{shown(claim.name)} is claimed for nobody"


@rule(Severity.WARNING, Level.DEEP, Repair.INDEX)
def claim_extra(claim: Claim) -> Iterator[Fault]:
    """Nothing is claimed for a trade that does not use it, for that refuses whoever brings it."""
    if claim.holder is not None and claim.user is None:
        yield claim.holder, f"{shown(claim.name)} is claimed for it, and not used by it"


@rule(Severity.CRITICAL, Level.DEEP, Repair.COUNTERS)
def summary_fold(user_id: str, counters: Mapping[str, int], fold: Mapping[str, int]) -> Iterator[Fault]:
    """A user's stored counters equal the fold over his trades, live and archived."""
    for name in sorted(fold.keys() | counters.keys()):
        if fold.get(name, 0) != counters.get(name, 0):
            yield user_id, f"{name}: counter {counters.get(name, 0)}, trades come to {fold.get(name, 0)}"
