"""The arithmetic of statistics, against published figures and by hand."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepool.model.series import DAY_US, Result, series_of
from tradepool.model.statistics import (
    cagr,
    calmar,
    drawdown,
    exact_sum,
    sharpe,
    sortino,
    streaks,
    tally,
)

CASES = Path(__file__).parents[2] / "../shared/cases/statistics.json"

amounts = st.decimals(min_value=-(10**6), max_value=10**6, places=8)


def decimals(*values: object) -> list[Decimal]:
    return [Decimal(str(value)) for value in values]


def dated(pnls: list[Decimal]) -> list[tuple[int, Decimal]]:
    return list(enumerate(pnls))


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
    figures = tally(decimals(*case["pnls"]))
    assert agrees(figures.expectancy, case["expectancy"])
    assert agrees(figures.expectancy_ratio, case["expectancy_ratio"])
    assert agrees(figures.profit_factor, case["profit_factor"])


def test_published_drawdown(cases):
    case = cases["drawdown"]
    fall = drawdown(dated(decimals(*case["pnls"])), starting_balance=Decimal(case["start"]))
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
    pnls = decimals(*case["pnls"])
    assert agrees(tally(pnls).profit_factor, case["profit_factor"])
    assert agrees(tally(pnls).win_rate, case["win_rate"])
    assert agrees(sharpe(pnls), case["sharpe_per_trade"])
    assert -drawdown(dated(pnls)).by_amount.amount == Decimal(case["closed_drawdown"])


def test_published_sharpe_and_sortino(cases):
    of_sharpe, of_sortino = cases["sharpe-252"], cases["sortino-252"]
    ours = sharpe(decimals(*of_sharpe["returns"]), periods_per_year=252)
    assert agrees(ours, of_sharpe["sharpe_annualised"])
    ours = sortino(decimals(*of_sortino["returns"]), periods_per_year=252)
    assert agrees(ours, of_sortino["sortino_annualised"])


def test_no_results_define_no_ratio():
    nothing = tally([])
    assert nothing.count == 0
    assert nothing.win_rate is nothing.expectancy is nothing.profit_factor is nothing.payoff is None
    assert sharpe([]) is sortino([]) is None
    assert drawdown([]).by_amount.amount == 0
    assert drawdown([]).by_share is None


def test_without_losses_there_is_no_profit_factor():
    figures = tally(decimals(1, 2))
    assert figures.profit_factor is figures.payoff is figures.expectancy_ratio is None
    assert figures.expectancy == Decimal("1.5")
    assert sortino(decimals(1, 2)) is None


def test_without_wins_the_ratios_are_zero_and_minus_one():
    figures = tally(decimals(-1, -3))
    assert figures.profit_factor == figures.payoff == 0
    assert figures.expectancy_ratio == -1
    assert figures.average_loss == 2
    assert figures.average_win is None


def test_a_draw_counts_in_the_rates():
    figures = tally(decimals(3, 0, 0, -1))
    assert (figures.wins, figures.losses, figures.draws) == (1, 1, 2)
    assert figures.win_rate == Decimal("0.25")
    assert figures.expectancy == Decimal("0.5")


def test_equal_returns_have_no_sharpe():
    assert sharpe(decimals(2, 2, 2)) is None
    assert sharpe(decimals(2)) is None


def test_idle_periods_are_returns_of_zero():
    returns = decimals("0.01", "-0.02", "0.03")
    padded = [*returns, *decimals(0, 0)]
    assert sharpe(returns, idle_periods=2) == sharpe(padded)
    assert sortino(returns, idle_periods=2) == sortino(padded)


def test_streaks_end_at_a_draw():
    runs = streaks(decimals(1, 1, 0, 1, -1, -1, -1, 2, 2))
    assert (runs.wins_max, runs.losses_max, runs.current) == (2, 3, 2)
    assert streaks(decimals(1, -1, -2)).current == -2
    assert streaks(decimals(1, 0)).current == 0


def test_a_drawdown_knows_its_peak_and_its_low_point():
    dip = drawdown([(10, Decimal(5)), (20, Decimal(-3)), (30, Decimal(-1)), (40, Decimal(9))]).by_amount
    assert (dip.amount, dip.high, dip.low, dip.high_at, dip.low_at) == (4, 5, 1, 10, 30)
    assert dip.share is None


def test_a_fall_from_the_start_has_no_peak_time():
    dip = drawdown([(10, Decimal(-3))], starting_balance=Decimal(100)).by_amount
    assert (dip.high_at, dip.low_at, dip.share) == (None, 10, Decimal("0.03"))


def test_trades_closed_at_one_instant_are_one_step():
    results = [(10, Decimal(5)), (20, Decimal(-4)), (20, Decimal(3))]
    assert drawdown(results).by_amount.amount == 1
    assert drawdown(reversed(results)) == drawdown(results)


def test_a_starting_balance_that_is_not_positive_is_none():
    assert drawdown([(1, Decimal(-1))], starting_balance=Decimal(0)).by_share is None
    assert cagr(Decimal(0), Decimal(5), days=10) is None


def test_growth_needs_a_day_and_cannot_fall_below_everything():
    assert cagr(Decimal(100), Decimal(110), days=0) is None
    assert cagr(Decimal(100), Decimal(-5), days=10) == -1
    assert cagr(Decimal(100), Decimal(110), days=365) == Decimal("0.1")


def test_calmar_needs_growth_and_a_drawdown():
    assert calmar(Decimal("0.5"), Decimal("0.25")) == 2
    assert calmar(None, Decimal("0.25")) is calmar(Decimal("0.5"), Decimal(0)) is None


def test_sums_are_exact_where_the_default_context_would_round():
    assert exact_sum(decimals("1e23", "1e-18", "-1e23")) == Decimal("1e-18")


@given(st.lists(amounts))
def test_profit_less_loss_is_the_sum(pnls):
    figures = tally(pnls)
    assert figures.profit - figures.loss == exact_sum(pnls)
    assert figures.count == len(pnls)


@given(st.lists(amounts, max_size=30))
def test_the_drawdown_is_the_largest_of_all_falls(pnls):
    totals = [exact_sum(pnls[:count]) for count in range(len(pnls) + 1)]
    falls = [high - low for at, high in enumerate(totals) for low in totals[at:]]
    assert drawdown(dated(pnls)).by_amount.amount == max(falls)


@given(st.lists(amounts, max_size=30), st.randoms())
def test_a_series_does_not_depend_on_the_order_it_is_given(pnls, random):
    results = [Result(at // 2, f"t{at}", pnl) for at, pnl in enumerate(pnls)]
    shuffled = random.sample(results, len(results))
    assert series_of(shuffled, first_at=0) == series_of(results, first_at=0)


def test_a_series_needs_a_balance_for_what_is_relative():
    results = [Result(DAY_US, "a", Decimal(10)), Result(400 * DAY_US, "b", Decimal(-5))]
    bare = series_of(results, first_at=0)
    assert bare.max_drawdown_relative is bare.cagr is bare.calmar is bare.final_balance is None
    funded = series_of(results, first_at=0, starting_balance=Decimal(100))
    assert funded.final_balance == 105
    assert funded.max_drawdown_abs == bare.max_drawdown_abs == 5
    assert funded.cagr == cagr(Decimal(100), Decimal(105), days=400)
    assert funded.calmar == calmar(funded.cagr, funded.max_drawdown_relative)


def test_the_daily_ratio_counts_days_without_a_close():
    results = [Result(0, "a", Decimal(1)), Result(1, "b", Decimal(1)), Result(3 * DAY_US, "c", Decimal(-1))]
    assert series_of(results, first_at=0).sharpe_daily == sharpe(decimals(2, 0, 0, -1), periods_per_year=365)
    early = series_of(results, first_at=-DAY_US)
    assert early.sharpe_daily == sharpe(decimals(0, 2, 0, 0, -1), periods_per_year=365)
