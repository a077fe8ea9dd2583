"""Which slices of a user's trades a trade stands in: pair, strategy, signals, venue, reason, time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from tradepool.model.valuation import settlement

__all__ = ["BREAKDOWNS", "DAY_US", "PERIODS", "Labels", "Traits", "labels_of", "period_keys", "signal_keys"]

DAY_US = 86_400_000_000

PERIODS = ("by_day", "by_week", "by_month")
"""Breakdowns by when a trade was closed."""
BREAKDOWNS = (
    "pairs",
    "strategies",
    "signals",
    "exchanges",
    "sides",
    "sources",
    "close_reasons",
    *PERIODS,
)

SIGNALS_MAX = 64
"""Signals of one trade that are looked at."""
SIGNAL_CHARS_MAX = 32
"""Longest text of a signal that gets a slice of its own value."""

_NONE = "(none)"
_SIGNAL_DEPTH_MAX = 8
_CACHED = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Traits(NamedTuple):
    """What a trade is sorted by, as its record has it."""

    source: str
    market: str
    symbol: str
    exchange: str
    side: str
    strategy: str | None
    close_reason: str | None
    """Empty for a trade that was closed for no known reason, None for one that is not closed."""
    signals: bytes
    """JSON."""


class Labels(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What trades with the same traits have in common; most of them share one object."""

    source: str
    currency: str
    """The settlement currency."""
    keys: tuple[tuple[str, str], ...]
    """(breakdown, key) of everything but time; a trade may stand in several slices of `signals`."""


@lru_cache(maxsize=_CACHED)
def labels_of(traits: Traits) -> Labels:
    """The labels of trades with those traits."""
    return _shared(traits.source, settlement(traits.market, traits.symbol), tuple(_keys(traits)))


# Measurements among the signals differ from trade to trade, and their slices do not.
_shared = lru_cache(maxsize=_CACHED)(Labels)


def signal_keys(signals: Mapping[str, Any]) -> set[str]:
    """The slices that a trade's signals stand for.

    `{"rsi": -1, "strategy": {"trend": True}}` → `{"rsi=-1", "strategy.trend=true"}`. A measurement (a
    number with a fraction, a long text) has no slice per value, only its name: `rsi`.
    """
    found: set[str] = set()
    for path, value in _leaves("", signals, 0):
        if len(found) == SIGNALS_MAX:
            break
        found.add(path + _value_mark(value))
    return found


@lru_cache(maxsize=_CACHED)
def period_keys(day: int) -> tuple[str, str, str]:
    """What `PERIODS` call a day, counted from 1970: `2018-01-16`, `2018-W03` and `2018-01`, UTC."""
    date = _date(day)
    year, week, _ = date.isocalendar()
    return f"{date:%Y-%m-%d}".zfill(10), f"{year:04d}-W{week:02d}", f"{date:%Y-%m}".zfill(7)


def _date(day: int) -> datetime:
    """Held within what a datetime can say (the years 1 to 9999)."""
    try:
        return _EPOCH + timedelta(days=day)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if day > 0 else datetime.min.replace(tzinfo=UTC)


def _keys(traits: Traits) -> Iterator[tuple[str, str]]:
    yield "pairs", traits.symbol
    yield "strategies", traits.strategy or _NONE
    yield "exchanges", traits.exchange
    yield "sides", traits.side
    yield "sources", traits.source
    if traits.close_reason is not None:
        yield "close_reasons", traits.close_reason or _NONE
    for key in sorted(signal_keys(msgspec.json.decode(traits.signals))):
        yield "signals", key


def _leaves(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    if depth > _SIGNAL_DEPTH_MAX:
        return
    match value:
        case dict():
            for key, item in value.items():
                yield from _leaves(f"{path}.{key}" if path else str(key), item, depth + 1)
        case list() | tuple():
            for item in value:
                yield from _leaves(path, item, depth + 1)
        case _:
            yield path, value


def _value_mark(value: object) -> str:
    match value:
        case bool():
            return f"={value}".lower()
        case int():
            return f"={value}" if abs(value) < 10**SIGNAL_CHARS_MAX else ""
        case float() if value.is_integer():
            return f"={value:.0f}" if abs(value) < 10**SIGNAL_CHARS_MAX else ""
        case str() if len(value) <= SIGNAL_CHARS_MAX:
            return f"={value}"
    return ""
