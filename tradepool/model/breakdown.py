"""A user's trades cut into slices: by pair, strategy, signal, venue, reason and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model.counters import closed_outcome
from tradepool.model.kinds import Outcome
from tradepool.model.money import from_units
from tradepool.model.series import instant
from tradepool.model.statistics import Tally
from tradepool.model.trade import Trade

__all__ = [
    "BREAKDOWNS",
    "OTHER",
    "SLICES_MAX",
    "Slice",
    "Slices",
    "period_keys",
    "signal_keys",
    "trade_keys",
]

SLICES_MAX = 1000
"""Keys kept apart in one breakdown by a caller's text; trades with further keys share the slice `OTHER`."""
OTHER = "(other)"
"""Where trades go whose key did not fit any more."""
SIGNALS_MAX = 64
"""Signals of one trade that are looked at."""
SIGNAL_CHARS_MAX = 32
"""Longest text of a signal that gets a slice of its own value."""

PERIODS = ("by_day", "by_week", "by_month")
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

_NONE = "(none)"
_SIGNAL_DEPTH_MAX = 8


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the trades; `loss` is positive, ratios are None where undefined."""

    trade_count: int
    closed: int
    wins: int
    losses: int
    draws: int
    pnl: Decimal
    """Realised by all of them; `profit` less `loss` is the part of the closed ones."""
    profit: Decimal
    loss: Decimal
    win_rate: Decimal | None
    profit_factor: Decimal | None
    expectancy: Decimal | None


class Slices:
    """Slices that fill up trade by trade, one set of them per breakdown."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, _Row]] = {}

    def add(self, breakdown: str, key: str, pnl_units: int, outcome: Outcome | None) -> None:
        """Count a trade in the slice `key` of `breakdown`; `outcome` is None for one not closed."""
        rows = self._rows.setdefault(breakdown, {})
        row = rows.get(key)
        if row is None:
            own = len(rows) < SLICES_MAX or breakdown in PERIODS
            row = rows.setdefault(key if own else OTHER, _Row())
        row.add(pnl_units, outcome)

    def get(self, breakdown: str) -> dict[str, Slice]:
        """The slices of `breakdown`, sorted by key."""
        return {key: row.slice() for key, row in sorted(self._rows.get(breakdown, {}).items())}


def trade_keys(trade: Trade) -> Iterator[tuple[str, str]]:
    """(breakdown, key) pairs of everything but time; a trade may stand in several slices of `signals`."""
    yield "pairs", trade.symbol
    yield "strategies", trade.strategy or _NONE
    yield "exchanges", trade.exchange
    yield "sides", str(trade.side)
    yield "sources", str(trade.source)
    if closed_outcome(trade) is not None:
        yield "close_reasons", trade.close_reason or _NONE
    for key in sorted(signal_keys(trade.signals)):
        yield "signals", key


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


def period_keys(at_us: int) -> Iterator[tuple[str, str]]:
    """The UTC day `2018-01-16`, ISO week `2018-W03` and month `2018-01` that `at_us` falls in."""
    day = instant(at_us)
    year, week, _ = day.isocalendar()
    yield "by_day", f"{day:%Y-%m-%d}".zfill(10)
    yield "by_week", f"{year:04d}-W{week:02d}"
    yield "by_month", f"{day:%Y-%m}".zfill(7)


class _Row:
    """A slice while it fills up, in integers."""

    __slots__ = ("closed", "loss", "outcomes", "pnl", "profit", "trade_count")

    def __init__(self) -> None:
        self.trade_count = self.closed = self.pnl = self.profit = self.loss = 0
        self.outcomes = dict.fromkeys(Outcome, 0)

    def add(self, pnl_units: int, outcome: Outcome | None) -> None:
        self.trade_count += 1
        self.pnl += pnl_units
        if outcome is not None:
            self.closed += 1
            self.outcomes[outcome] += 1
            self.profit += max(pnl_units, 0)
            self.loss += max(-pnl_units, 0)

    def slice(self) -> Slice:
        wins, losses, draws = (
            self.outcomes[outcome] for outcome in (Outcome.WIN, Outcome.LOSS, Outcome.FLAT)
        )
        figures = Tally(wins, losses, draws, from_units(self.profit), from_units(self.loss))
        return Slice(
            trade_count=self.trade_count,
            closed=self.closed,
            wins=wins,
            losses=losses,
            draws=draws,
            pnl=from_units(self.pnl),
            profit=figures.profit,
            loss=figures.loss,
            win_rate=figures.win_rate,
            profit_factor=figures.profit_factor,
            expectancy=figures.expectancy,
        )


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
