"""The arithmetic of statistics, against published figures and by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepool.model import course as course_module
from tradepool.model.counters import from_fine_units, to_fine_units
from tradepool.model.course import Course
from tradepool.model.drawdown import Curve, Drawdown, Fall, drawdown
from tradepool.model.facts import Fact
from tradepool.model.kinds import TradeOutcome
from tradepool.model.labels import DAY_US, Labels
from tradepool.model.series import Series, series_of
from tradepool.model.statistics import Moments, Streaks, Tally, cagr, calmar, sharpe, sortino

CASES = Path(__file__).parents[2] / "../shared/cases/statistics.json"

amounts = st.decimals(min_value=-(10**6), max_value=10**6, places=8)


def decimals(*values: object) -> list[Decimal]:
    return [Decimal(str(value)) for value in values]


def units(*values: object) -> list[int]:
    return [to_fine_units(Decimal(str(value))) for value in values]


def moments(*values: object) -> Moments:
    return Moments(units(*values))


def tally(*values: object) -> Tally:
    amounts = decimals(*values)
    gains, falls = [x for x in amounts if x > 0], [-x for x in amounts if x < 0]
    draws = len(amounts) - len(gains) - len(falls)
    return Tally(len(gains), len(falls), draws, sum(gains, Decimal(0)), sum(falls, Decimal(0)))


def falls_of(*pnls: object, times: Sequence[int] | None = None, start: object = None) -> Drawdown:
    """One close a µs, unless they say when."""
    falls: list[Fall] = []
    end = Curve().after(times or range(1, len(pnls) + 1), units(*pnls), falls)
    balance = None if start is None else to_fine_units(Decimal(str(start)))
    return drawdown([*falls, *end.last_falls()], starting_balance=balance)


def closed(at: int, pnl: object, number: int = 0) -> Fact:
    amount = to_fine_units(Decimal(str(pnl)))
    return Fact(
        at=at,
        trade_id=f"t{number}",
        pnl=amount,
        outcome=TradeOutcome.WIN if amount > 0 else TradeOutcome.LOSS if amount < 0 else TradeOutcome.FLAT,
        began=0,
        held_us=at,
        reported=None,
        reported_sign=0,
        deposit=0,
        version=1,
        labels=Labels("real", "USDT", ()),
    )


def course() -> Course:
    signs = {TradeOutcome.WIN: 1, TradeOutcome.LOSS: -1, TradeOutcome.FLAT: 0, None: 0}
    return Course(lambda fact: fact.pnl, lambda fact: signs[fact.outcome])


def series(*pairs: tuple[int, object], first_at: int | None = None, start: object = None) -> Series:
    """Of (µs, amount) pairs."""
    results = course()
    results.add([closed(at, pnl, number) for number, (at, pnl) in enumerate(pairs)])
    balance = None if start is None else to_fine_units(Decimal(str(start)))
    return series_of(results, first_at=first_at, starting_balance=balance)


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    if not CASES.exists():
        pytest.skip("the published cases are not here")
    return {case["id"]: case for case in json.loads(CASES.read_text())}


def agrees(ours: Decimal | None, published: str) -> bool:
    """Equal to the digits given."""
    assert ours is not None
    return abs(ours - Decimal(published)) <= Decimal(1).scaleb(Decimal(published).as_tuple().exponent)


def test_published_expectancy(cases):
    case = cases["expectancy"]
    figures = tally(*case["pnls"])
    assert agrees(figures.expectancy, case["expectancy"])
    assert agrees(figures.expectancy_ratio, case["expectancy_ratio"])
    assert agrees(figures.profit_factor, case["profit_factor"])


def test_published_drawdown(cases):
    case = cases["drawdown"]
    fall = falls_of(*case["pnls"], start=case["start"])
    assert fall.by_amount.amount == Decimal(case["max_drawdown_abs"])
    assert agrees(fall.by_amount.share, case["relative_at_max_abs"])
    assert fall.by_share is not None
    assert agrees(fall.by_share.share, case["max_drawdown_relative"])
    assert fall.by_share.amount == Decimal(case["abs_at_max_relative"])


@pytest.mark.parametrize("name", ["cagr-3y", "cagr-100d"])
def test_published_growth(cases, name):
    case = cases[name]
    assert agrees(cagr(Decimal(case["start"]), Decimal(case["end"]), days=case["days"]), case["cagr"])


def test_published_figures_per_trade(cases):
    case = cases["lean-three"]
    pnls = case["pnls"]
    assert agrees(tally(*pnls).profit_factor, case["profit_factor"])
    assert agrees(tally(*pnls).win_rate, case["win_rate"])
    assert agrees(sharpe(moments(*pnls)), case["sharpe_per_trade"])
    assert -falls_of(*pnls).by_amount.amount == Decimal(case["closed_drawdown"])


def test_published_sharpe_and_sortino(cases):
    of_sharpe, of_sortino = cases["sharpe-252"], cases["sortino-252"]
    ours = sharpe(moments(*of_sharpe["returns"]), periods_per_year=252)
    assert agrees(ours, of_sharpe["sharpe_annualised"])
    ours = sortino(moments(*of_sortino["returns"]), periods_per_year=252)
    assert agrees(ours, of_sortino["sortino_annualised"])


def test_no_results_define_no_ratio():
    nothing = tally()
    assert nothing.count == 0
    assert nothing.win_rate is nothing.expectancy is nothing.profit_factor is nothing.payoff is None
    assert sharpe(moments()) is sortino(moments()) is None
    assert falls_of().by_amount.amount == 0
    assert falls_of().by_share is None
    figures = series()
    assert figures.best is figures.worst_day is figures.sharpe_daily is None
    assert (figures.current_streak, figures.winning_days) == (0, 0)


def test_without_losses_there_is_no_profit_factor():
    figures = tally(1, 2)
    assert figures.profit_factor is figures.payoff is figures.expectancy_ratio is None
    assert figures.expectancy == Decimal("1.5")
    assert sortino(moments(1, 2)) is None


def test_without_wins_the_ratios_are_zero_and_minus_one():
    figures = tally(-1, -3)
    assert figures.profit_factor == figures.payoff == 0
    assert figures.expectancy_ratio == -1
    assert figures.average_loss == 2
    assert figures.average_win is None


def test_what_draws_have_lost_makes_no_payoff_without_losses():
    figures = Tally(wins=1, losses=0, draws=1, profit=Decimal(5), loss=Decimal(2))
    assert figures.payoff is figures.expectancy_ratio is None
    assert figures.profit_factor == Decimal("2.5")


def test_a_draw_counts_in_the_rates():
    figures = tally(3, 0, 0, -1)
    assert (figures.wins, figures.losses, figures.draws) == (1, 1, 2)
    assert figures.win_rate == Decimal("0.25")
    assert figures.expectancy == Decimal("0.5")


def test_equal_returns_have_no_sharpe():
    assert sharpe(moments(2, 2, 2)) is None
    assert sharpe(moments(2)) is None


def test_idle_periods_are_returns_of_zero():
    returns, padded = moments("0.01", "-0.02", "0.03"), moments("0.01", "-0.02", "0.03", 0, 0)
    assert sharpe(returns, idle_periods=2) == sharpe(padded)
    assert sortino(returns, idle_periods=2) == sortino(padded)


def test_the_risk_ratios_are_those_of_exact_arithmetic_and_28_digits():
    pnls = ["12345678901234567890.123456789012345678", "-0.000000000000000001", "-98765432109876543210.5"]
    with localcontext(prec=200):
        values = decimals(*pnls)
        mean = sum(values) / 3
        deviation = (sum((x - mean) ** 2 for x in values) / 2).sqrt()
        downside = (sum(x * x for x in values if x < 0) / 3).sqrt()
    figures = sharpe(moments(*pnls)), sortino(moments(*pnls))
    with localcontext(prec=26):
        assert [+figure for figure in figures if figure is not None] == [mean / deviation, mean / downside]


def test_streaks_end_at_a_draw():
    runs = Streaks().after([1, 1, 0, 1, -1, -1, -1, 1, 1])
    assert (runs.wins_max, runs.losses_max, runs.current) == (2, 3, 2)
    assert Streaks().after([1, -1, -1]).current == -2
    assert Streaks().after([1, 0]).current == 0
    assert Streaks().after([]) == (0, 0, 0)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=12), st.integers(0, 12))
def test_streaks_are_the_longest_equal_stretches_however_they_are_told(signs, part):
    stretches = [(sign, sum(1 for _ in run)) for sign, run in groupby(signs)]
    runs = Streaks().after(signs[:part]).after(signs[part:])
    assert runs.wins_max == max((length for sign, length in stretches if sign == 1), default=0)
    assert runs.losses_max == max((length for sign, length in stretches if sign == -1), default=0)
    assert runs.current == (stretches[-1][0] * stretches[-1][1] if stretches else 0)


def test_a_drawdown_knows_its_peak_and_its_low_point():
    dip = falls_of(5, -3, -1, 9, times=[10, 20, 30, 40]).by_amount
    assert (dip.amount, dip.high, dip.low, dip.high_at, dip.low_at) == (4, 5, 1, 10, 30)
    assert dip.share is None


def test_a_fall_from_the_start_has_no_peak_time():
    dip = falls_of(-3, times=[10], start=100).by_amount
    assert (dip.high_at, dip.low_at, dip.share) == (None, 10, Decimal("0.03"))
    assert falls_of(3).by_amount.low_at is None


def test_of_equal_dips_the_first_counts():
    dip = falls_of(5, -2, 2, -2, 3, -2, start=1).by_amount
    assert (dip.high_at, dip.low_at) == (1, 2)
    shares = falls_of(0, -1, 3, -2, start=2).by_share
    assert shares is not None
    assert (shares.share, shares.low_at) == (Decimal("0.5"), 2)


def test_the_deepest_share_is_of_the_balance_at_its_own_peak():
    later = falls_of(5, -2, 4, -3, start=1).by_share
    assert later is not None
    assert later.share == Decimal("0.375")
    earlier = falls_of(5, -3, 5, -3, start=1).by_share
    assert earlier is not None
    assert earlier.share == Decimal("0.5")


def test_trades_closed_at_one_instant_are_one_step():
    assert falls_of(5, -4, 3, times=[10, 20, 20]).by_amount.amount == 1
    assert falls_of(5, 3, -4, times=[10, 20, 20]).by_amount.amount == 1


def test_a_starting_balance_that_is_not_positive_is_none():
    assert falls_of(-1, start=0).by_share is None
    assert cagr(Decimal(0), Decimal(5), days=10) is None


def test_growth_needs_a_day_and_cannot_fall_below_everything():
    assert cagr(Decimal(100), Decimal(110), days=0) is None
    assert cagr(Decimal(100), Decimal(-5), days=10) == -1
    assert cagr(Decimal(100), Decimal(110), days=365) == Decimal("0.1")


def test_calmar_needs_growth_and_a_drawdown():
    assert calmar(Decimal("0.5"), Decimal("0.25")) == 2
    assert calmar(None, Decimal("0.25")) is calmar(Decimal("0.5"), Decimal(0)) is None


@settings(max_examples=50)
@given(st.lists(amounts, max_size=30), st.sampled_from([None, 1, 1000]))
def test_the_drawdowns_are_the_largest_of_all_falls(pnls, start):
    totals = list(accumulate(pnls, initial=Decimal(0)))
    falls = [(high, high - low) for at, high in enumerate(totals) for low in totals[at:]]
    found = falls_of(*pnls, start=start)
    assert found.by_amount.amount == max(fall for _, fall in falls)
    if start is not None:
        # A fall counts from the highest balance before it.
        peaks = [(max(totals[: at + 1]), low) for at, low in enumerate(totals)]
        share = max(Fraction(high - low) / Fraction(start + high) for high, low in peaks)
        assert found.by_share is not None
        assert found.by_share.share == Decimal(share.numerator) / Decimal(share.denominator)


dated_results = st.lists(st.tuples(st.integers(0, 3 * DAY_US) | st.integers(0, 9), amounts), max_size=25)


@settings(max_examples=60)
@given(dated_results, st.lists(st.tuples(st.booleans(), st.integers(0, 24)), max_size=12), st.integers(1, 4))
def test_a_course_that_changed_is_that_of_what_is_left(pairs, moves, stride):
    facts = [closed(at, pnl, number) for number, (at, pnl) in enumerate(pairs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course_module, "_STRIDE", stride)
        patch.setattr(course_module, "_SORT_WITHIN", stride)
        changed, stay = course(), set(facts[::2])
        changed.add(facts[::2])
        for is_looked_at, number in moves:
            if is_looked_at:
                changed.follow()
            for fact in facts[number : number + 1]:
                (changed.remove if fact in stay else changed.add)([fact])
                stay ^= {fact}
        fresh = course()
        fresh.add(list(stay))
        assert series_of(changed, first_at=0, starting_balance=10) == series_of(
            fresh, first_at=0, starting_balance=10
        )


def test_a_series_needs_a_balance_for_what_is_relative():
    closed = [(DAY_US, 10), (400 * DAY_US, -5)]
    bare = series(*closed, first_at=0)
    assert bare.max_drawdown_relative is bare.cagr is bare.calmar is bare.final_balance is None
    funded = series(*closed, first_at=0, start=100)
    assert funded.final_balance == 105
    assert funded.max_drawdown_abs == bare.max_drawdown_abs == 5
    assert funded.cagr == cagr(Decimal(100), Decimal(105), days=400)
    assert funded.calmar == calmar(funded.cagr, funded.max_drawdown_relative)


def test_the_daily_figures_count_days_without_a_close():
    closed = [(0, 1), (1, 1), (3 * DAY_US, -1)]
    found = series(*closed, first_at=0)
    assert found.sharpe_daily == sharpe(moments(2, 0, 0, -1), periods_per_year=365)
    assert found.sortino_daily == sortino(moments(2, 0, 0, -1), periods_per_year=365)
    early = series(*closed, first_at=-DAY_US)
    assert early.sharpe_daily == sharpe(moments(0, 2, 0, 0, -1), periods_per_year=365)
    assert (found.best_day, found.worst_day, found.winning_days, found.losing_days) == (2, -1, 1, 1)


def test_a_day_between_without_a_close_is_a_day_of_zero():
    found = series((0, 2), (2 * DAY_US, 3))
    assert (found.best_day, found.worst_day, found.losing_days) == (3, 0, 0)
    assert series((0, 2), (DAY_US, 3)).worst_day == 2
    assert series((0, 1), (1, -1)).best_day == 0


def test_fine_units_keep_eighteen_places_of_any_size():
    for text in ("1e-18", "-123456789012345678901234.000000000000000001", "0"):
        assert from_fine_units(to_fine_units(Decimal(text))) == Decimal(text)
