"""What a summary's statistics are made of: trades that can enter and leave, in memory per trade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec

from tradepool.model.breakdown import Slice, Slices
from tradepool.model.counters import to_fine_units
from tradepool.model.course import Course, Extremes
from tradepool.model.facts import Fact
from tradepool.model.kinds import TradeOutcome
from tradepool.model.labels import BREAKDOWNS
from tradepool.model.series import Series, series_of
from tradepool.model.spans import Durations, Holding, windows

__all__ = ["Fold", "Statistics"]

_SIGN_OF: dict[TradeOutcome | None, int] = {TradeOutcome.WIN: 1, TradeOutcome.LOSS: -1, TradeOutcome.FLAT: 0}


class Statistics(Series, frozen=True, kw_only=True):
    """What a summary knows beyond sums; the fields of `Series` are over the closed trades' `pnl`.

    Breakdowns by a caller's text show the `breakdown.SLICES_MAX` slices of the most trades, all others as
    one.
    """

    reported_series: Series
    """The same over `pnl_reported` of the closed trades that carry one, as it was reported.

    Its streaks count wins and losses as `Reported` does.
    """
    durations: Durations
    first_at: int | None
    """When the first trade was opened (or else created), µs."""
    last_at: int | None
    """When the last trade was closed, µs."""
    pairs: dict[str, Slice]
    strategies: dict[str, Slice]
    signals: dict[str, Slice]
    """By signal and value (`rsi=-1`); a trade counts in the slice of each of its signals."""
    exchanges: dict[str, Slice]
    sides: dict[str, Slice]
    sources: dict[str, Slice]
    close_reasons: dict[str, Slice]
    by_day: dict[str, Slice]
    """Closed trades by the UTC day of closing, `2018-01-16`."""
    by_week: dict[str, Slice]
    by_month: dict[str, Slice]
    windows: dict[str, Slice]
    """Closed trades of the last `1d`, `7d`, … before and including the last close."""


class Fold:
    """The trades of one source and currency, in whatever order they came and went."""

    def __init__(self) -> None:
        self._facts: dict[str, Fact] = {}
        self._slices = Slices()
        self._holding = Holding()
        self._began = Extremes(attrgetter("began"))
        self._computed = Course(attrgetter("pnl"), lambda fact: _SIGN_OF[fact.outcome])
        self._reported = Course(attrgetter("reported"), attrgetter("reported_sign"))
        self._deposit = 0
        self._kept: Statistics | None = None

    @property
    def size(self) -> int:
        """How many trades and slices it remembers."""
        return len(self._facts) + self._slices.size

    @property
    def trade_count(self) -> int:
        """How many trades are counted."""
        return len(self._facts)

    @property
    def facts(self) -> Iterable[Fact]:
        """The trades, in no order."""
        return self._facts.values()

    def get(self, trade_id: str) -> Fact | None:
        """The trade as it is counted; None for one that is not."""
        return self._facts.get(trade_id)

    def add(self, facts: Sequence[Fact]) -> None:
        """Count more trades."""
        self._kept = None
        self._facts.update((fact.trade_id, fact) for fact in facts)
        closed, told = _closed_and_told(facts)
        self._slices.add(facts)
        self._holding.add(closed)
        self._began.add(facts)
        self._computed.add(closed)
        self._reported.add(told)
        self._deposit += sum(fact.deposit for fact in facts)

    def remove(self, facts: Sequence[Fact]) -> None:
        """Count trades no more, given as `get` has them."""
        self._kept = None
        for fact in facts:
            del self._facts[fact.trade_id]
        closed, told = _closed_and_told(facts)
        self._slices.remove(facts)
        self._computed.remove(closed)
        self._reported.remove(told)
        self._holding.remove(closed, self._computed.closed)
        self._began.remove(facts, self._facts.values())
        self._deposit -= sum(fact.deposit for fact in facts)

    def statistics(self, starting_balance: Decimal | None = None) -> Statistics:
        """Everything, worked out once per change.

        The starting balance is the sum of the trades' deposits unless given.
        """
        if starting_balance is not None:
            return self._work_out(to_fine_units(starting_balance))
        if self._kept is None:
            self._kept = self._work_out(self._deposit)
        return self._kept

    def _work_out(self, balance: int) -> Statistics:
        closed, first_at = self._computed.closed, self._began.least
        computed = series_of(self._computed, first_at=first_at, starting_balance=balance)
        breakdowns: dict[str, Any] = {name: self._slices.get(name) for name in BREAKDOWNS}
        return Statistics(
            **msgspec.structs.asdict(computed),
            reported_series=series_of(self._reported, first_at=first_at, starting_balance=balance),
            durations=self._holding.durations(),
            first_at=first_at,
            last_at=closed[-1].at if closed else None,
            windows=windows(closed, self._slices),
            **breakdowns,
        )


def _closed_and_told(facts: Iterable[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Those that are closed, and of these the ones that carry a reported result."""
    closed = [fact for fact in facts if fact.outcome is not None]
    return closed, [fact for fact in closed if fact.reported is not None]
