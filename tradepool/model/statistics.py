"""Trading statistics over profits and losses, exact in Decimal; no clock, no trades, no I/O.

A *result* is the profit or loss of one closed trade, a *dated result* the pair of the moment it was
closed (µs since 1970) and that amount. Sums are exact; quotients and roots have 28 digits. A figure
that the numbers do not define (a ratio without a loss, a deviation of one value) is None, never 0.

The conventions are those of freqtrade's `data/metrics.py`, Lean's `TradeStatistics` and
NautilusTrader's analysis package, as each docstring names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, localcontext
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec

from tradepool.model.money import CONTEXT, ONE, ZERO

__all__ = [
    "DAYS_PER_YEAR",
    "Dip",
    "Drawdown",
    "Streaks",
    "Tally",
    "cagr",
    "calmar",
    "drawdown",
    "exact_sum",
    "sharpe",
    "sortino",
    "streaks",
    "tally",
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
        return _quotient(Decimal(self.wins), Decimal(self.count))

    @property
    def average_win(self) -> Decimal | None:
        """Mean gain of a win."""
        return _quotient(self.profit, Decimal(self.wins))

    @property
    def average_loss(self) -> Decimal | None:
        """Mean loss of a loss, as a positive number."""
        return _quotient(self.loss, Decimal(self.losses))

    @property
    def profit_factor(self) -> Decimal | None:
        """Profit over loss; None without losses."""
        return _quotient(self.profit, self.loss)

    @property
    def payoff(self) -> Decimal | None:
        """Average win over average loss (risk-reward); None without losses, 0 without wins."""
        if not self.loss:
            return None
        return _quotient(self.average_win or ZERO, self.average_loss or ONE)

    @property
    def expectancy(self) -> Decimal | None:
        """Mean result: win rate x average win - loss rate x average loss."""
        return _quotient(CONTEXT.subtract(self.profit, self.loss), Decimal(self.count))

    @property
    def expectancy_ratio(self) -> Decimal | None:
        """(1 + payoff) x win rate - 1, as freqtrade has it (a draw weighs like a loss).

        None without losses.
        """
        if self.payoff is None or self.win_rate is None:
            return None
        return _RATIOS.subtract(_RATIOS.multiply(_RATIOS.add(ONE, self.payoff), self.win_rate), ONE)


class Streaks(NamedTuple):
    """Longest runs of wins and of losses; `current` is the last run, negative for losses.

    A draw ends both kinds of run.
    """

    wins_max: int
    losses_max: int
    current: int


class Dip(msgspec.Struct, frozen=True):
    """A fall of the running total from a peak to the lowest point after it.

    `high` and `low` are running totals of the results alone; `share` is `amount` over the balance at
    the peak (starting balance + high), None where no starting balance is known. `high_at` is None
    when the peak is the start itself.
    """

    amount: Decimal
    share: Decimal | None
    high: Decimal
    low: Decimal
    high_at: int | None
    low_at: int | None


class Drawdown(msgspec.Struct, frozen=True):
    """The deepest dip by amount and the deepest by share; they need not be the same.

    `by_share` is None without a starting balance.
    """

    by_amount: Dip
    by_share: Dip | None


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """The sum without any rounding."""
    with localcontext(CONTEXT):
        return sum(amounts, ZERO)


def tally(results: Iterable[Decimal]) -> Tally:
    """Counts and sums of `results`, in any order."""
    amounts = list(results)
    gains = [amount for amount in amounts if amount > 0]
    falls = [-amount for amount in amounts if amount < 0]
    draws = len(amounts) - len(gains) - len(falls)
    return Tally(len(gains), len(falls), draws, exact_sum(gains), exact_sum(falls))


def streaks(results: Iterable[Decimal]) -> Streaks:
    """The runs in `results`, which come in the order in which the trades were closed."""
    best, worst, run = 0, 0, 0
    for amount in results:
        sign = (amount > 0) - (amount < 0)
        run = run + sign if sign * run > 0 else sign
        best, worst = max(best, run), min(worst, run)
    return Streaks(best, -worst, run)


def drawdown(
    dated_results: Iterable[tuple[int, Decimal]], *, starting_balance: Decimal | None = None
) -> Drawdown:
    """The deepest falls of the running total, as freqtrade's `calculate_max_drawdown` has them.

    The curve starts at zero (or at `starting_balance`, which is used only if it is above 0) and is
    sampled after each closing instant: trades closed at one instant are one step, so their order
    cannot change the figure. Of equal dips the first counts; no fall at all is a dip of 0.
    """
    balance = starting_balance if starting_balance and starting_balance > 0 else None
    flat = Dip(ZERO, None if balance is None else ZERO, ZERO, ZERO, None, None)
    by_amount, by_share = flat, flat
    for dip in _dips(dated_results, balance):
        if dip.amount > by_amount.amount:
            by_amount = dip
        if dip.share is not None and by_share.share is not None and dip.share > by_share.share:
            by_share = dip
    return Drawdown(by_amount, None if balance is None else by_share)


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


def sharpe(
    returns: Sequence[Decimal], *, periods_per_year: int | None = None, idle_periods: int = 0
) -> Decimal | None:
    """Mean over standard deviation of `returns`; risk-free rate 0.

    Sampling is the caller's: one value per trade (Lean's figure) or per day. The deviation is the
    sample's (ddof = 1). With `periods_per_year` the ratio is annualised by its square root (252 for
    stock exchanges, 365 for crypto). `idle_periods` more periods with a return of 0 count as well.
    None for fewer than two periods or when all returns are equal.
    """
    count = len(returns) + idle_periods
    total = exact_sum(returns)
    with localcontext(CONTEXT):
        spread = sum((value * value for value in returns), ZERO) * count - total * total
    if count <= 1 or spread <= 0:
        return None
    # Mean and deviation are both left multiplied by count, so that little more than the root is rounded.
    variance = CONTEXT.divide(CONTEXT.multiply(spread, Decimal(count)), Decimal(count - 1))
    return _annualised(_RATIOS.divide(total, _RATIOS.sqrt(variance)), periods_per_year)


def sortino(
    returns: Sequence[Decimal], *, periods_per_year: int | None = None, idle_periods: int = 0
) -> Decimal | None:
    """Mean of `returns` over their downside deviation; target return 0.

    The downside deviation is the root of the mean, over *all* periods (ddof = 0), of the squared
    negative returns, as NautilusTrader has it. Sampling, `periods_per_year` and `idle_periods` as
    for `sharpe`. None without a negative return.
    """
    count = len(returns) + idle_periods
    total = exact_sum(returns)
    squares = exact_sum(CONTEXT.multiply(value, value) for value in returns if value < 0)
    if not squares:
        return None
    deviation = _RATIOS.sqrt(CONTEXT.multiply(squares, Decimal(count)))
    return _annualised(_RATIOS.divide(total, deviation), periods_per_year)


def calmar(annual_growth: Decimal | None, max_drawdown_share: Decimal | None) -> Decimal | None:
    """Annual growth rate over the maximum relative drawdown; None if either is unknown or there was none."""
    if annual_growth is None or not max_drawdown_share:
        return None
    return _quotient(annual_growth, max_drawdown_share)


def _dips(dated_results: Iterable[tuple[int, Decimal]], balance: Decimal | None) -> Iterable[Dip]:
    high, total, high_at = ZERO, ZERO, None
    ordered = sorted(dated_results, key=itemgetter(0))
    for at, step in groupby(ordered, key=itemgetter(0)):
        total = CONTEXT.add(total, exact_sum(amount for _, amount in step))
        if total > high:
            high, high_at = total, at
        amount = CONTEXT.subtract(high, total)
        share = None if balance is None else _quotient(amount, CONTEXT.add(balance, high))
        yield Dip(amount, share, high, total, high_at, at)


def _annualised(ratio: Decimal, periods_per_year: int | None) -> Decimal:
    if periods_per_year is None:
        return ratio
    return _RATIOS.multiply(ratio, _RATIOS.sqrt(Decimal(periods_per_year)))


def _quotient(numerator: Decimal, denominator: Decimal) -> Decimal | None:
    return _RATIOS.divide(numerator, denominator) if denominator else None
