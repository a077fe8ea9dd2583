"""Rules for the keys of the store themselves."""

from __future__ import annotations

from collections.abc import Iterator

from tradepool.audit.report import Severity
from tradepool.audit.rules.registry import Fault, Level, Repair, rule
from tradepool.store.inspection import StoredKey

__all__ = ["key_ttl", "key_type", "key_value", "unknown_key"]


@rule(Severity.CRITICAL, Level.DEEP, Repair.KEY)
def key_ttl(key: StoredKey) -> Iterator[Fault]:
    """Nothing that holds trades, balances or what follows from them goes away by itself."""
    if key.expected and key.has_time_limit:
        yield key.name, "it has a time limit"


@rule(Severity.CRITICAL, Level.DEEP, Repair.JOURNAL)
def key_type(key: StoredKey) -> Iterator[Fault]:
    """A key has the type that the pool gives it; what it hides cannot be audited until it has again."""
    if key.expected and key.found != key.expected:
        yield key.name, f"a {key.found}, not a {key.expected}"


@rule(Severity.CRITICAL, Level.DIGEST, Repair.COUNTERS)
def key_value(name: str, problem: str) -> Iterator[Fault]:
    """What stands in a key can be read as what it should be."""
    if problem:
        yield name, problem


@rule(Severity.WARNING, Level.DEEP)
def unknown_key(key: StoredKey) -> Iterator[Fault]:
    """A key that is named like one of the pool's is one: what stands under another name is read by nobody."""
    if not key.expected:
        yield key.name, f"a {key.found} that nobody reads"
