"""The figures of a run of closed trades that are no sums: streaks, drawdown, risk ratios, growth."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from tradepool.model import statistics
from tradepool.model.counters import from_fine_units
from tradepool.model.course import Course
from tradepool.model.drawdown import Drawdown, drawdown
from tradepool.model.facts import Fact
from tradepool.model.labels import DAY_US
from tradepool.model.statistics import DAYS_PER_YEAR, Moments

__all__ = ["Series", "series_of"]


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
    """The last run: n wins, or -n losses. Runs go by what results count as, all else by the amounts."""
    best_day: Decimal | None
    """Highest total of a UTC day, first to last close; a day between them without a close has 0."""
    worst_day: Decimal | None
    winning_days: int
    losing_days: int

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


def series_of(course: Course, *, first_at: int | None = None, starting_balance: int | None = None) -> Series:
    """The statistics of results; `first_at` is when the first of the trades was opened, µs.

    The starting balance is in fine units, and none unless it is above 0.
    """
    runs, falls = course.follow()
    balance = starting_balance if starting_balance and starting_balance > 0 else None
    fall = drawdown(falls, starting_balance=balance)
    deepest = fall.by_share.share if fall.by_share else None
    final = None if balance is None else balance + course.moments.total
    growth = _growth(balance, final, course.closed, first_at)
    return Series(
        best=_money(course.extremes.greatest),
        worst=_money(course.extremes.least),
        max_consecutive_wins=runs.wins_max,
        max_consecutive_losses=runs.losses_max,
        current_streak=runs.current,
        starting_balance=_money(balance),
        final_balance=_money(final),
        max_drawdown_abs=fall.by_amount.amount,
        max_drawdown_relative=deepest,
        drawdown=fall,
        sharpe=statistics.sharpe(course.moments),
        sortino=statistics.sortino(course.moments),
        cagr=growth,
        calmar=statistics.calmar(growth, deepest),
        **_daily(course, first_at),
    )


def _growth(
    start: int | None, end: int | None, closed: Sequence[Fact], first_at: int | None
) -> Decimal | None:
    if start is None or end is None or first_at is None or not closed:
        return None
    days = (closed[-1].at - min(first_at, closed[0].at)) // DAY_US
    return statistics.cagr(Decimal(start), Decimal(end), days=days)


def _daily(course: Course, first_at: int | None) -> dict[str, Any]:
    """The figures over UTC days."""
    closed, totals = course.closed, list(course.by_day.values())
    first, last = (closed[0].at // DAY_US, closed[-1].at // DAY_US) if closed else (0, -1)
    began = first if first_at is None else min(first, first_at // DAY_US)
    extremes = [*totals, 0] if last - first + 1 > len(totals) else totals
    returns = Moments(totals)
    yearly = {"periods_per_year": DAYS_PER_YEAR, "idle_periods": last - began + 1 - len(totals)}
    return {
        "best_day": _money(max(extremes, default=None)),
        "worst_day": _money(min(extremes, default=None)),
        "winning_days": sum(1 for total in totals if total > 0),
        "losing_days": sum(1 for total in totals if total < 0),
        "sharpe_daily": statistics.sharpe(returns, **yearly),
        "sortino_daily": statistics.sortino(returns, **yearly),
    }


def _money(amount: int | None) -> Decimal | None:
    return None if amount is None else from_fine_units(amount)
