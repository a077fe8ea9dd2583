"""A user's trades cut into slices, which trades can enter and leave again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from heapq import nsmallest

import msgspec

from tradepool.model.counters import from_fine_units
from tradepool.model.facts import Fact
from tradepool.model.kinds import TradeOutcome
from tradepool.model.labels import BREAKDOWNS, DAY_US, PERIODS, Labels, period_keys
from tradepool.model.statistics import Tally

__all__ = ["OTHER", "SLICES_MAX", "Row", "Slice", "Slices"]

SLICES_MAX = 1000
"""Slices shown of one breakdown by a caller's text, those of the most trades; the rest are in `OTHER`."""
OTHER = "(other)"
"""The slice of all trades whose own slice is not shown."""

_WIN, _LOSS = TradeOutcome.WIN, TradeOutcome.LOSS


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


class Row:
    """A slice while it fills up, in whole numbers."""

    __slots__ = ("_slice", "draws", "loss", "losses", "pnl", "profit", "trade_count", "wins")

    def __init__(self) -> None:
        self.trade_count = self.wins = self.losses = self.draws = 0
        self.pnl = self.profit = self.loss = 0
        self._slice: Slice | None = None

    def count(self, pnl: int, outcome: TradeOutcome | None) -> None:
        """One more trade; `outcome` is None for one that is not closed."""
        self._slice = None
        self.trade_count += 1
        self.pnl += pnl
        if outcome is None:
            return
        if pnl > 0:
            self.profit += pnl
        else:
            self.loss -= pnl
        if outcome is _WIN:
            self.wins += 1
        elif outcome is _LOSS:
            self.losses += 1
        else:
            self.draws += 1

    def merge(self, other: Row, sign: int = 1) -> None:
        """All trades of `other` as well; with -1 they leave again."""
        self.trade_count += sign * other.trade_count
        self.wins += sign * other.wins
        self.losses += sign * other.losses
        self.draws += sign * other.draws
        self.pnl += sign * other.pnl
        self.profit += sign * other.profit
        self.loss += sign * other.loss
        self._slice = None

    def slice(self) -> Slice:
        """The figures, worked out once."""
        if self._slice is None:
            self._slice = self._figures()
        return self._slice

    def _figures(self) -> Slice:
        profit, loss = from_fine_units(self.profit), from_fine_units(self.loss)
        results = Tally(self.wins, self.losses, self.draws, profit, loss)
        return Slice(
            trade_count=self.trade_count,
            closed=results.count,
            wins=self.wins,
            losses=self.losses,
            draws=self.draws,
            pnl=from_fine_units(self.pnl),
            profit=profit,
            loss=loss,
            win_rate=results.win_rate,
            profit_factor=results.profit_factor,
            expectancy=results.expectancy,
        )


class Slices:
    """The slices of all breakdowns."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {breakdown: {} for breakdown in BREAKDOWNS}

    @property
    def size(self) -> int:
        """How many slices there are."""
        return sum(map(len, self._rows.values()))

    def add(self, facts: Iterable[Fact]) -> None:
        """More trades, in any order."""
        self._merge(facts, 1)

    def remove(self, facts: Iterable[Fact]) -> None:
        """Trades that were added leave."""
        self._merge(facts, -1)

    def get(self, breakdown: str) -> dict[str, Slice]:
        """The slices of `breakdown`, sorted by key; at most `SLICES_MAX` and `OTHER`, but every period."""
        rows = self._rows[breakdown]
        if len(rows) > SLICES_MAX and breakdown not in PERIODS:
            rows = _largest(rows)
        return {key: row.slice() for key, row in sorted(rows.items())}

    def merge_day(self, day: int, *, into: Row) -> None:
        """Add what was closed on a day, counted from 1970."""
        row = self._rows["by_day"].get(period_keys(day)[0])
        if row is not None:
            into.merge(row)

    def _merge(self, facts: Iterable[Fact], sign: int) -> None:
        """Trades with the same labels, or closed on the same day, are summed up before they are spread."""
        by_labels: dict[Labels, Row] = defaultdict(Row)
        by_day: dict[int, Row] = defaultdict(Row)
        for fact in facts:
            outcome = fact.outcome
            by_labels[fact.labels].count(fact.pnl, outcome)
            if outcome is not None:
                by_day[fact.at // DAY_US].count(fact.pnl, outcome)
        for labels, row in by_labels.items():
            for breakdown, key in labels.keys:
                self._spread(breakdown, key, row, sign)
        for day, row in by_day.items():
            for breakdown, key in zip(PERIODS, period_keys(day), strict=True):
                self._spread(breakdown, key, row, sign)

    def _spread(self, breakdown: str, key: str, row: Row, sign: int) -> None:
        rows = self._rows[breakdown]
        own = rows.get(key)
        if own is None:
            own = rows[key] = Row()
        own.merge(row, sign)
        if not own.trade_count:
            del rows[key]


def _largest(rows: dict[str, Row]) -> dict[str, Row]:
    """Those of the most trades, equal ones in order of their keys; all others under `OTHER`."""
    own = (item for item in rows.items() if item[0] != OTHER)
    shown = dict(nsmallest(SLICES_MAX, own, key=lambda item: (-item[1].trade_count, item[0])))
    shown[OTHER] = others = Row()
    for key, row in rows.items():
        if key not in shown or key == OTHER:
            others.merge(row)
    return shown
