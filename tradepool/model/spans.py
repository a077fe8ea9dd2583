"""How long trades were held, and what those of the last days came to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from operator import attrgetter

import msgspec

from tradepool.model.breakdown import Row, Slice, Slices
from tradepool.model.course import Extremes
from tradepool.model.facts import Fact
from tradepool.model.kinds import TradeOutcome
from tradepool.model.labels import DAY_US
from tradepool.model.money import CONTEXT, canonical

__all__ = ["WINDOW_DAYS", "Durations", "Holding", "windows"]

WINDOW_DAYS = (1, 7, 30, 90, 365)
"""Windows counted back from the last close."""

_at = attrgetter("at")


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """How long closed trades were held, from opened to closed, in seconds; None without any."""

    average_s: Decimal | None
    average_win_s: Decimal | None
    average_loss_s: Decimal | None
    shortest_s: Decimal | None
    longest_s: Decimal | None


class Holding:
    """How long trades were held in all, by how they ended; trades may leave again."""

    def __init__(self) -> None:
        self._counts: dict[TradeOutcome | None, int] = defaultdict(int)
        self._held_us: dict[TradeOutcome | None, int] = defaultdict(int)
        self._extremes = Extremes(attrgetter("held_us"))

    def add(self, closed: Sequence[Fact]) -> None:
        """More closed trades."""
        self._count(closed, 1)
        self._extremes.add(closed)

    def remove(self, closed: Sequence[Fact], rest: Sequence[Fact]) -> None:
        """Trades that were added leave; `rest` remain."""
        self._count(closed, -1)
        self._extremes.remove(closed, rest)

    def durations(self) -> Durations:
        """The figures."""
        counts, held_us = self._counts, self._held_us
        shortest, longest = self._extremes.least, self._extremes.greatest
        return Durations(
            average_s=_average_s(sum(held_us.values()), sum(counts.values())),
            average_win_s=_average_s(held_us[TradeOutcome.WIN], counts[TradeOutcome.WIN]),
            average_loss_s=_average_s(held_us[TradeOutcome.LOSS], counts[TradeOutcome.LOSS]),
            shortest_s=None if shortest is None else _seconds(shortest),
            longest_s=None if longest is None else _seconds(longest),
        )

    def _count(self, closed: Iterable[Fact], sign: int) -> None:
        for fact in closed:
            self._counts[fact.outcome] += sign
            self._held_us[fact.outcome] += sign * fact.held_us


def windows(closed: Sequence[Fact], slices: Slices) -> dict[str, Slice]:
    """Closed trades of the last `1d`, `7d`, … before and including the last close.

    `closed` come in order; whole days are taken from their `slices`.
    """
    if not closed:
        return {}
    last_at = closed[-1].at
    return {f"{days}d": _window(closed, slices, last_at - days * DAY_US, last_at) for days in WINDOW_DAYS}


def _window(closed: Sequence[Fact], slices: Slices, after: int, last_at: int) -> Slice:
    row, first_day, last_day = Row(), after // DAY_US + 1, last_at // DAY_US
    start, end = bisect_right(closed, after, key=_at), bisect_left(closed, first_day * DAY_US, key=_at)
    for fact in closed[start:end]:
        row.count(fact.pnl, fact.outcome)
    for day in range(first_day, last_day + 1):
        slices.merge_day(day, into=row)
    return row.slice()


def _average_s(held_us: int, count: int) -> Decimal | None:
    return _seconds(held_us // count) if count else None


def _seconds(microseconds: int) -> Decimal:
    return canonical(Decimal(microseconds).scaleb(-6, context=CONTEXT))
