"""One pass over trades that gathers what a summary's statistics need, in memory per closed trade."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from tradepool.model.breakdown import BREAKDOWNS, Slice, Slices, period_keys, trade_keys
from tradepool.model.counters import closed_outcome, reported_verdict
from tradepool.model.kinds import Outcome
from tradepool.model.money import CONTEXT, ZERO, canonical, from_units, to_units
from tradepool.model.series import DAY_US, Result, Series, series_of
from tradepool.model.trade import Trade

__all__ = ["WINDOW_DAYS", "Durations", "Fold", "Statistics"]

WINDOW_DAYS = (1, 7, 30, 90, 365)
"""Windows counted back from the last close."""


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """How long closed trades were held, from opened to closed, in seconds; None without any."""

    average_s: Decimal | None
    average_win_s: Decimal | None
    average_loss_s: Decimal | None
    shortest_s: Decimal | None
    longest_s: Decimal | None


class Statistics(Series, frozen=True, kw_only=True):
    """What a summary knows beyond sums; the fields of `Series` are over the closed trades' `pnl`."""

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


class _Closed(NamedTuple):
    """What is remembered of a closed trade."""

    result: Result
    outcome: Outcome
    held_us: int


class Fold:
    """The trades of one source and currency, added in any order."""

    def __init__(self) -> None:
        self._slices = Slices()
        self._closed: list[_Closed] = []
        self._reported: list[Result] = []
        self._deposit = ZERO
        self._first_at: int | None = None

    def add(self, trade: Trade) -> None:
        """Count one more trade."""
        began = trade.created_at if trade.opened_at is None else trade.opened_at
        self._first_at = began if self._first_at is None else min(began, self._first_at)
        self._deposit = CONTEXT.add(self._deposit, trade.deposit or ZERO)
        units, outcome = to_units(trade.pnl), closed_outcome(trade)
        for breakdown, key in trade_keys(trade):
            self._slices.add(breakdown, key, units, outcome)
        if outcome is not None:
            self._add_closed(trade, outcome, units, began)

    def statistics(self, starting_balance: Decimal | None = None) -> Statistics:
        """Everything; the starting balance is the sum of the trades' deposits unless given."""
        balance = self._deposit if starting_balance is None else starting_balance
        results = [closed.result for closed in self._closed]
        last_at = max((result.at for result in results), default=None)
        computed = series_of(results, first_at=self._first_at, starting_balance=balance)
        breakdowns: dict[str, Any] = {name: self._slices.get(name) for name in BREAKDOWNS}
        return Statistics(
            **msgspec.structs.asdict(computed),
            reported_series=series_of(self._reported, first_at=self._first_at, starting_balance=balance),
            durations=_durations(self._closed),
            first_at=self._first_at,
            last_at=last_at,
            windows=self._windows(last_at),
            **breakdowns,
        )

    def _add_closed(self, trade: Trade, outcome: Outcome, units: int, began: int) -> None:
        at = trade.updated_at if trade.closed_at is None else trade.closed_at
        result = Result(at, trade.trade_id, from_units(units))
        self._closed.append(_Closed(result, outcome, max(at - began, 0)))
        if trade.pnl_reported is not None:
            self._reported.append(Result(at, trade.trade_id, trade.pnl_reported, reported_verdict(trade)))
        for breakdown, key in period_keys(at):
            self._slices.add(breakdown, key, units, outcome)

    def _windows(self, last_at: int | None) -> dict[str, Slice]:
        if last_at is None:
            return {}
        slices = Slices()
        for result, outcome, _ in self._closed:
            for days in WINDOW_DAYS:
                if result.at > last_at - days * DAY_US:
                    slices.add("windows", f"{days}d", to_units(result.pnl), outcome)
        return slices.get("windows")


def _durations(closed: Sequence[_Closed]) -> Durations:
    held = [trade.held_us for trade in closed]
    return Durations(
        average_s=_average_s(held),
        average_win_s=_average_s([trade.held_us for trade in closed if trade.outcome == Outcome.WIN]),
        average_loss_s=_average_s([trade.held_us for trade in closed if trade.outcome == Outcome.LOSS]),
        shortest_s=_seconds(min(held)) if held else None,
        longest_s=_seconds(max(held)) if held else None,
    )


def _average_s(held_us: Sequence[int]) -> Decimal | None:
    return _seconds(sum(held_us) // len(held_us)) if held_us else None


def _seconds(microseconds: int) -> Decimal:
    return canonical(Decimal(microseconds).scaleb(-6, context=CONTEXT))
