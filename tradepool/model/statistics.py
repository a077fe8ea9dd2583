"""Trading statistics over profits and losses, exact; no clock, no trades, no I/O.

A *result* is the profit or loss of one closed trade. Runs of results come in the order of closing and in
fine units (integers of 1e-18, `counters.to_fine_units`), whose sums are exact and cheap; what comes out is
Decimal. Quotients and roots have 28 digits. A figure that the numbers do not define (a ratio without a
loss, a deviation of one value) is None, never 0.

The conventions are those of freqtrade's `data/metrics.py`, Lean's `TradeStatistics` and
NautilusTrader's analysis package, as each docstring names them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Context, Decimal
from operator import mul
from typing import NamedTuple

import msgspec

from tradepool.model.money import CONTEXT, ONE, ZERO

__all__ = [
    "DAYS_PER_YEAR",
    "Moments",
    "Streaks",
    "Tally",
    "cagr",
    "calmar",
    "quotient",
    "sharpe",
    "sortino",
]

DAYS_PER_YEAR = 365
"""Crypto trades every day of the year."""

_RATIOS = Context(prec=28)


class Tally(msgspec.Struct, frozen=True):
    """Counts and sums of results, from which every average and ratio follows.

    `profit` is the sum of the gains, `loss` the sum of the losses as a positive number; a draw is a
    result of exactly zero and counts in every rate.
    """

    wins: int
    losses: int
    draws: int
    profit: Decimal
    loss: Decimal

    @property
    def count(self) -> int:
        """How many results there are."""
        return self.wins + self.losses + self.draws

    @property
    def win_rate(self) -> Decimal | None:
        """Wins of all results, 0 to 1."""
        return quotient(Decimal(self.wins), Decimal(self.count))

    @property
    def average_win(self) -> Decimal | None:
        """Mean gain of a win."""
        return quotient(self.profit, Decimal(self.wins))

    @property
    def average_loss(self) -> Decimal | None:
        """Mean loss of a loss, as a positive number."""
        return quotient(self.loss, Decimal(self.losses))

    @property
    def profit_factor(self) -> Decimal | None:
        """Profit over loss; None without losses."""
        return quotient(self.profit, self.loss)

    @property
    def payoff(self) -> Decimal | None:
        """Average win over average loss (risk-reward); None without losses, 0 without wins."""
        return quotient(self.average_win or ZERO, self.average_loss or ZERO)

    @property
    def expectancy(self) -> Decimal | None:
        """Mean result: win rate x average win - loss rate x average loss."""
        return quotient(CONTEXT.subtract(self.profit, self.loss), Decimal(self.count))

    @property
    def expectancy_ratio(self) -> Decimal | None:
        """(1 + payoff) x win rate - 1, as freqtrade has it (a draw weighs like a loss).

        None without losses.
        """
        if self.payoff is None or self.win_rate is None:
            return None
        return _RATIOS.subtract(_RATIOS.multiply(_RATIOS.add(ONE, self.payoff), self.win_rate), ONE)


class Moments:
    """What the risk ratios need of a set of results in fine units; results may leave it again."""

    __slots__ = ("count", "falls", "squares", "total")

    def __init__(self, results: Collection[int] = ()) -> None:
        self.count = self.total = self.squares = 0
        self.falls = 0
        """The squares of the negative ones."""
        self.add(results)

    def add(self, results: Collection[int]) -> None:
        """More results."""
        self._count(results, 1)

    def remove(self, results: Collection[int]) -> None:
        """Results that were added leave."""
        self._count(results, -1)

    def _count(self, results: Collection[int], sign: int) -> None:
        falls = [result for result in results if result < 0]
        self.count += sign * len(results)
        self.total += sign * sum(results)
        self.squares += sign * sum(map(mul, results, results))
        self.falls += sign * sum(map(mul, falls, falls))


class Streaks(NamedTuple):
    """Longest runs of wins and of losses; `current` is the last run, negative for losses.

    A draw ends both kinds of run.
    """

    wins_max: int = 0
    losses_max: int = 0
    current: int = 0

    def after(self, signs: Iterable[int]) -> Streaks:
        """With what was closed next: 1 a win, -1 a loss, 0 a draw, in the order of closing."""
        longest, lowest, run = self.wins_max, -self.losses_max, self.current
        for sign in signs:
            run = run + sign if run * sign > 0 else sign
            if run > longest:
                longest = run
            elif run < lowest:
                lowest = run
        return Streaks(longest, -lowest, run)


def quotient(numerator: Decimal, denominator: Decimal) -> Decimal | None:
    """To 28 digits; None of 0."""
    return _RATIOS.divide(numerator, denominator) if denominator else None


def cagr(start: Decimal, end: Decimal, *, days: int | Decimal) -> Decimal | None:
    """Compound annual growth rate, (end / start) ** (365 / days) - 1, as freqtrade has it.

    -1 when nothing is left; None for less than a day or without a positive start.
    """
    if start <= 0 or days < 1:
        return None
    if end <= 0:
        return Decimal(-1)
    periods = _RATIOS.divide(Decimal(DAYS_PER_YEAR), Decimal(days))
    return _RATIOS.subtract(_RATIOS.power(_RATIOS.divide(end, start), periods), ONE)


def sharpe(returns: Moments, *, periods_per_year: int | None = None, idle_periods: int = 0) -> Decimal | None:
    """Mean over standard deviation of `returns`; risk-free rate 0.

    Sampling is the caller's: one value per trade (Lean's figure) or per day. The deviation is the
    sample's (ddof = 1). With `periods_per_year` the ratio is annualised by its square root (252 for
    stock exchanges, 365 for crypto). `idle_periods` more periods with a return of 0 count as well.
    None for fewer than two periods or when all returns are equal.
    """
    count, total = returns.count + idle_periods, returns.total
    spread = returns.squares * count - total * total
    if count <= 1 or spread <= 0:
        return None
    # Mean and deviation are both left multiplied by count, so that little more than the root is rounded.
    variance = CONTEXT.divide(Decimal(spread * count), Decimal(count - 1))
    return _annualised(_RATIOS.divide(Decimal(total), _RATIOS.sqrt(variance)), periods_per_year)


def sortino(
    returns: Moments, *, periods_per_year: int | None = None, idle_periods: int = 0
) -> Decimal | None:
    """Mean of `returns` over their downside deviation; target return 0.

    The downside deviation is the root of the mean, over *all* periods (ddof = 0), of the squared
    negative returns, as NautilusTrader has it. Sampling, `periods_per_year` and `idle_periods` as
    for `sharpe`. None without a negative return.
    """
    if not returns.falls:
        return None
    deviation = _RATIOS.sqrt(Decimal(returns.falls * (returns.count + idle_periods)))
    return _annualised(_RATIOS.divide(Decimal(returns.total), deviation), periods_per_year)


def calmar(annual_growth: Decimal | None, max_drawdown_share: Decimal | None) -> Decimal | None:
    """Annual growth rate over the maximum relative drawdown; None if either is unknown or there was none."""
    if annual_growth is None or not max_drawdown_share:
        return None
    return quotient(annual_growth, max_drawdown_share)


def _annualised(ratio: Decimal, periods_per_year: int | None) -> Decimal:
    if periods_per_year is None:
        return ratio
    return _RATIOS.multiply(ratio, _RATIOS.sqrt(Decimal(periods_per_year)))
