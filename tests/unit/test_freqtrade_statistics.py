"""What a freqtrade export publishes about itself, reproduced; and every figure that is another by definition.

docs/statistics.md tells the differences in words.
"""

from __future__ import annotations

import json
from decimal import Decimal
from statistics import mean

import pytest

from tests.import_files import SHARED, entries, with_shared_data
from tradepool.model import intake
from tradepool.model.summary import summarise

FILE = SHARED / "freqtrade/backtest-result.json"
pytestmark = with_shared_data


@pytest.fixture(scope="module")
def published():
    return json.loads(FILE.read_text())["strategy"]["StrategyTestV3"]


@pytest.fixture(scope="module")
def trades():
    return [intake.trade_from_dict(row.trade, now_us=1) for row in entries(FILE)]


@pytest.fixture(scope="module")
def summary(trades):
    return summarise(trades, user_id="freqtrade")


def close(ours, theirs, rel=1e-14):
    return float(ours) == pytest.approx(theirs, rel=rel)


def test_counts_totals_and_growth_are_the_published_ones(summary, published):
    reported, series = summary.reported, summary.statistics.reported_series
    assert reported.trade_count == published["total_trades"] == published["trade_count_long"] == 179
    assert (reported.wins, reported.losses, reported.draws) == (48, 9, 122)
    assert [published[name] for name in ("wins", "losses", "draws")] == [48, 9, 122]
    assert close(reported.pnl, published["profit_total_abs"])
    assert close(reported.profit_factor, published["profit_factor"])
    assert series.starting_balance == Decimal(str(published["starting_balance"]))
    assert close(series.final_balance, published["final_balance"])
    assert close(reported.pnl / series.starting_balance, published["profit_total"])
    assert close(series.cagr, published["cagr"], rel=1e-12)


def test_rounding_is_carried_on_so_that_the_totals_are_exact(trades):
    written = [Decimal(trade.extra["freqtrade"]["profit_abs"]) for trade in trades]
    assert any(-profit.as_tuple().exponent > 18 for profit in written)
    for sign in (1, -1):
        ours = sum(t.pnl_reported for t in trades if t.pnl_reported * sign > 0)
        assert abs(ours - sum(profit for profit in written if profit * sign > 0)) < Decimal("1e-18")


def test_the_drawdown_has_the_published_depth_and_dates(summary, published):
    series = summary.statistics.reported_series
    fall = series.drawdown.by_amount
    assert close(series.max_drawdown_abs, published["max_drawdown_abs"])
    assert close(series.max_drawdown_relative, published["max_drawdown_account"])
    assert close(series.max_drawdown_relative, published["max_relative_drawdown"])
    assert close(fall.high, published["max_drawdown_high"])
    assert close(fall.low, published["max_drawdown_low"])
    dates = published["drawdown_start_ts"], published["drawdown_end_ts"]
    assert (fall.high_at, fall.low_at) == tuple(int(at) * 1000 for at in dates)


def test_days_are_the_published_ones_at_their_ten_places(summary, published):
    series = summary.statistics.reported_series
    assert round(float(series.best_day), 10) == published["backtest_best_day_abs"]
    assert round(float(series.worst_day), 10) == published["backtest_worst_day_abs"]
    days = published["winning_days"], published["losing_days"]
    assert (series.winning_days, series.losing_days) == days == (19, 2)


def test_expectancy_is_that_of_freqtrades_own_formulas(summary, published):
    """This export is older than the figure: its trades stand in for it, in the floats they are written in."""
    profits = [trade["profit_abs"] for trade in published["trades"]]
    wins, losses = [p for p in profits if p > 0], [p for p in profits if p < 0]
    win_rate, payoff = len(wins) / len(profits), mean(wins) / -mean(losses)
    assert close(summary.reported.expectancy, mean(profits), rel=1e-12)
    assert close(summary.reported.expectancy_ratio, (1 + payoff) * win_rate - 1, rel=1e-12)


def test_holding_times_are_the_published_ones_to_whole_minutes(summary, published):
    durations = summary.statistics.durations
    for ours, theirs in (
        (durations.average_s, "holding_avg_s"),
        (durations.average_win_s, "winner_holding_avg_s"),
        (durations.average_loss_s, "loser_holding_avg_s"),
    ):
        assert round(ours / 60) * 60 == published[theirs]


def test_pairs_have_the_published_totals(trades, published):
    ours = {}
    for trade in trades:
        ours.setdefault(trade.symbol, []).append(trade.pnl_reported)
    theirs = {row["key"]: row for row in published["results_per_pair"] if row["key"] != "TOTAL"}
    assert ours.keys() == theirs.keys()
    for symbol, profits in ours.items():
        assert len(profits) == theirs[symbol]["trades"]
        assert close(sum(profits), theirs[symbol]["profit_total_abs"], rel=1e-12)


def test_the_profit_that_the_export_reports_is_before_fees(summary, trades, published):
    """Where our own figure differs, and why: the reported profits leave the fees out, their ratios do not."""
    for trade, theirs in zip(trades, published["trades"], strict=True):
        gross = float(trade.exit_value - trade.entry_cost)
        assert gross == pytest.approx(theirs["profit_abs"], rel=1e-9, abs=1e-15)
        assert float(trade.roi) == pytest.approx(theirs["profit_ratio"], abs=2e-5)
    # Each booking is rounded to eight places, half a unit up or down.
    rounding = Decimal("5e-9") * 179
    assert summary.gross == pytest.approx(summary.reported.pnl, abs=rounding)
    assert summary.net == pytest.approx(summary.gross - summary.fees["BTC"], abs=2 * rounding)
    # After fees the same trades won, lost and drew as the ratios say.
    assert (summary.wins, summary.losses, summary.draws) == (48, 9, 122)


def test_a_volume_counts_both_sides(summary, published):
    """Freqtrade's `total_volume` is what was staked; ours the notional of entries and exits."""
    assert float(summary.volume) == pytest.approx(2 * published["total_volume"], rel=0.01)
