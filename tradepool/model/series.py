"""The figures of a run of closed trades that are no sums: streaks, drawdown, risk ratios, growth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

import msgspec

from tradepool.model import statistics
from tradepool.model.money import CONTEXT
from tradepool.model.statistics import DAYS_PER_YEAR, Drawdown

__all__ = ["DAY_US", "Result", "Series", "instant", "series_of"]

DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Result(NamedTuple):
    """A closed trade as the statistics see it; sorts by time, equal times by id."""

    at: int
    trade_id: str
    pnl: Decimal
    verdict: Decimal | None = None
    """The figure whose sign makes it a win, a loss or a draw; None is `pnl`."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of results in the order of closing; None where the numbers define nothing.

    Amounts are in the settlement currency, times in µs since 1970. Relative figures, `cagr` and
    `calmar` need a `starting_balance`.
    """

    best: Decimal | None
    worst: Decimal | None
    max_consecutive_wins: int
    max_consecutive_losses: int
    current_streak: int
    """The last run: n wins, or -n losses. Runs go by each result's `verdict`, all else by its amount."""

    starting_balance: Decimal | None
    final_balance: Decimal | None
    max_drawdown_abs: Decimal
    max_drawdown_relative: Decimal | None
    """Share of the balance at the peak, 0 to 1 and beyond when more than everything was lost."""
    drawdown: Drawdown
    """Both drawdowns with peak, low point and their times."""

    sharpe: Decimal | None
    """Per trade: mean over sample deviation (ddof 1) of the results; not annualised."""
    sortino: Decimal | None
    """Per trade: mean over downside deviation (ddof 0, target 0); not annualised."""
    sharpe_daily: Decimal | None
    """Sampled by UTC day, days without a close as 0, first open to last close; times √365."""
    sortino_daily: Decimal | None
    """As `sharpe_daily`, over the downside deviation."""
    cagr: Decimal | None
    """Yearly growth over the whole days from the first open to the last close, of 365."""
    calmar: Decimal | None
    """`cagr` over `max_drawdown_relative`."""


def series_of(
    results: Sequence[Result], *, first_at: int | None = None, starting_balance: Decimal | None = None
) -> Series:
    """The statistics of `results`, in any order; `first_at` is when the first of the trades opened."""
    ordered = sorted(results)
    pnls = [result.pnl for result in ordered]
    began = min(first_at, ordered[0].at) if ordered and first_at is not None else first_at
    runs = statistics.streaks(
        [result.pnl if result.verdict is None else result.verdict for result in ordered]
    )
    balance = starting_balance if starting_balance and starting_balance > 0 else None
    fall = statistics.drawdown([(result.at, result.pnl) for result in ordered], starting_balance=balance)
    deepest = fall.by_share.share if fall.by_share else None
    final = None if balance is None else CONTEXT.add(balance, statistics.exact_sum(pnls))
    growth = _growth(balance, final, began, ordered)
    daily, idle_days = _by_day(ordered, began)
    yearly = {"periods_per_year": DAYS_PER_YEAR, "idle_periods": idle_days}
    return Series(
        best=max(pnls, default=None),
        worst=min(pnls, default=None),
        max_consecutive_wins=runs.wins_max,
        max_consecutive_losses=runs.losses_max,
        current_streak=runs.current,
        starting_balance=balance,
        final_balance=final,
        max_drawdown_abs=fall.by_amount.amount,
        max_drawdown_relative=deepest,
        drawdown=fall,
        sharpe=statistics.sharpe(pnls),
        sortino=statistics.sortino(pnls),
        sharpe_daily=statistics.sharpe(daily, **yearly),
        sortino_daily=statistics.sortino(daily, **yearly),
        cagr=growth,
        calmar=statistics.calmar(growth, deepest),
    )


def instant(at_us: int) -> datetime:
    """The UTC datetime of `at_us`, held within what a datetime can say (the years 1 to 9999)."""
    try:
        return _EPOCH + timedelta(microseconds=at_us)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if at_us > 0 else datetime.min.replace(tzinfo=UTC)


def _growth(
    start: Decimal | None, end: Decimal | None, began: int | None, ordered: Sequence[Result]
) -> Decimal | None:
    if start is None or end is None or began is None or not ordered:
        return None
    return statistics.cagr(start, end, days=(ordered[-1].at - began) // DAY_US)


def _by_day(ordered: Sequence[Result], began: int | None) -> tuple[list[Decimal], int]:
    if not ordered:
        return [], 0
    totals = [
        statistics.exact_sum(result.pnl for result in day)
        for _, day in groupby(ordered, key=lambda result: result.at // DAY_US)
    ]
    first = ordered[0].at if began is None else began
    return totals, ordered[-1].at // DAY_US - first // DAY_US + 1 - len(totals)
