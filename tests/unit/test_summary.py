"""Summaries: counters against the fold, sources and currencies kept apart, published totals."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepool.errors import InvalidTrade
from tradepool.model.breakdown import OTHER, SLICES_MAX
from tradepool.model.counters import add_counters, contribution, parse_key
from tradepool.model.fill import Fill
from tradepool.model.kinds import Role, Side, Source, Status, TradeOutcome
from tradepool.model.labels import DAY_US, signal_keys
from tradepool.model.pnl import book_fill
from tradepool.model.summary import Summary, summarise, summary_from_counters
from tradepool.model.trade import Trade
from tradepool.model.user_fold import UserFold

BACKTEST = Path(__file__).parents[2] / "../shared/data/freqtrade/backtest-result.json"

_numbers = count()


def opened(amount: object = 1, price: object = 100, *, fee: object = 0, **fields: Any) -> Trade:
    """A trade whose entry is filled."""
    number = next(_numbers)
    trade = Trade(
        trade_id=f"t{number}",
        user_id="u",
        amount=Decimal(str(amount)),
        **{"symbol": "BTC/USDT", "side": Side.BUY, "created_at": number, **fields},
    )
    return book_fill(trade, fill(trade, Role.ENTRY, price, fee, at=trade.created_at))


def closed(pnl: object = 0, *, at: int | None = None, fee: object = 0, **fields: Any) -> Trade:
    """A completed trade that earned `pnl` before its exit fee."""
    trade = opened(**fields)
    exit_price = Decimal(100) + Decimal(str(pnl))
    return book_fill(
        trade, fill(trade, Role.EXIT, exit_price, fee, at=trade.created_at if at is None else at)
    )


def reported_only(pnl: str, **fields: Any) -> Trade:
    """A trade of which only the result is known."""
    outcome = TradeOutcome.WIN if Decimal(pnl) > 0 else TradeOutcome.LOSS
    return msgspec.structs.replace(
        opened(**fields), status=Status.COMPLETED, outcome=outcome, pnl_reported=Decimal(pnl), closed_at=5
    )


def fill(trade: Trade, role: Role, price: object, fee: object, *, at: int) -> Fill:
    return Fill(
        fill_id=f"{trade.trade_id}:{role}",
        role=role,
        amount=trade.amount,
        price=Decimal(str(price)),
        fee=Decimal(str(fee)),
        at=at,
    )


def counted(trades: list[Trade]) -> dict[str, int]:
    total: dict[str, int] = {}
    for trade in trades:
        add_counters(total, contribution(trade))
    return total


def without_statistics(summary: Summary) -> dict[str, Any]:
    bare = {
        name: msgspec.structs.replace(block, statistics=None) for name, block in summary.by_currency.items()
    }
    return msgspec.structs.asdict(msgspec.structs.replace(summary, statistics=None, by_currency=bare))


def test_legacy_keys_and_counts():
    trades = [
        closed(5, deposit=Decimal(1000)),
        closed(-2),
        closed(0),
        opened(),
        msgspec.structs.replace(opened(), status=Status.PARTIALLY_CLOSED),
    ]
    summary = summarise(trades, user_id="u")
    assert (summary.trade_count, summary.open, summary.closed) == (5, 2, 3)
    assert (summary.wins, summary.losses, summary.draws) == (1, 1, 1)
    assert (summary.pnl, summary.profit, summary.loss, summary.deposit) == (3, 5, 2, 1000)
    assert summary.pairs["BTC/USDT"].trade_count == 5
    assert summary.profit_factor == Decimal("2.5")
    assert summary.win_rate == Decimal(1) / Decimal(3)
    assert summary.expectancy == 1


def test_a_trade_that_never_filled_is_neither_open_nor_closed():
    cancelled = Trade(trade_id="t", user_id="u", symbol="A/B", side=Side.BUY, amount=Decimal(1))
    cancelled = msgspec.structs.replace(cancelled, status=Status.CANCELLED)
    assert contribution(cancelled) == {"real|B|trades": 1}


def test_fees_gross_and_net():
    trade = book_fill(book := opened(fee="0.5"), fill(book, Role.EXIT, 110, "0.25", at=9))
    summary = summarise([trade], user_id="u")
    assert (summary.gross, summary.net, summary.pnl) == (10, Decimal("9.25"), Decimal("9.25"))
    assert summary.fees == {"USDT": Decimal("0.75")}
    assert summary.volume == 210


def test_the_realised_part_of_an_open_trade_is_in_the_pnl_but_not_in_the_profit():
    trade = opened(amount=2)
    part = msgspec.structs.replace(fill(trade, Role.EXIT, 110, 0, at=9), amount=Decimal(1))
    summary = summarise([book_fill(trade, part)], user_id="u")
    assert (summary.open, summary.pnl, summary.profit, summary.closed) == (1, 10, 0, 0)


def test_a_user_without_trades_has_zeros():
    summary = summarise([], user_id="nobody")
    assert (summary.trade_count, summary.pnl, summary.currency, summary.source) == (0, 0, "", "real")
    assert summary.profit_factor is summary.win_rate is None
    assert summary.by_currency == summary.other_sources == {}
    json.dumps(summary.to_dict())


def test_settlement_currencies_are_never_added():
    trades = [closed(1), closed(2), closed(7, symbol="ETH/BTC"), closed(9, symbol="X/Y:BTC")]
    trades.append(closed(1))
    summary = summarise(trades, user_id="u")
    assert (summary.currency, summary.pnl) == ("USDT", 4)
    assert {name: block.pnl for name, block in summary.by_currency.items()} == {"USDT": 4, "BTC": 16}
    asked = summarise(trades, user_id="u", currency="BTC")
    assert (asked.currency, asked.pnl, asked.trade_count) == ("BTC", 16, 2)
    assert summarise(trades, user_id="u", currency="EUR").trade_count == 0


def test_the_only_source_is_the_default():
    summary = summarise([closed(1, source=Source.PAPER)], user_id="u")
    assert (summary.source, summary.pnl, summary.other_sources) == ("paper", 1, {})


def test_real_is_the_default_among_several_sources():
    trades = [closed(1), closed(50, source=Source.BACKTEST), closed(60, source=Source.BACKTEST)]
    summary = summarise(trades, user_id="u")
    assert (summary.source, summary.pnl, summary.other_sources) == ("real", 1, {"backtest": 2})
    mixed = summarise(trades, user_id="u", source="all")
    assert (mixed.source, mixed.pnl, mixed.other_sources) == ("all", 111, {})
    assert mixed.statistics is not None
    assert {name: part.pnl for name, part in mixed.statistics.sources.items()} == {"real": 1, "backtest": 110}
    asked = summarise(trades, user_id="u", source=Source.BACKTEST)
    assert (asked.pnl, asked.other_sources) == (110, {"real": 1})


def test_an_unknown_source_is_refused():
    with pytest.raises(InvalidTrade, match="source"):
        summarise([], user_id="u", source="live")


def test_a_reported_result_counts_where_no_exit_is_known():
    summary = summarise([reported_only("4.123456789"), reported_only("-1")], user_id="u")
    assert (summary.wins, summary.losses) == (1, 1)
    assert summary.pnl == Decimal("3.12345679")
    assert summary.net == summary.gross == 0
    assert summary.reported.pnl == Decimal("3.123456789")
    assert summary.reported.profit_factor == Decimal("4.123456789")


def test_reported_figures_keep_all_places_beside_the_computed_ones():
    trade = msgspec.structs.replace(closed(5), pnl_reported=Decimal("5.000000000000000001"))
    summary = summarise([trade], user_id="u")
    assert summary.pnl == 5
    assert summary.reported.pnl == Decimal("5.000000000000000001")


@pytest.mark.parametrize(
    ("pnl", "roi", "counts"),
    [
        ("2", None, (1, 0, 0)),
        ("-2", None, (0, 1, 0)),
        ("0", None, (0, 0, 1)),
        ("2", "0", (0, 0, 1)),
        ("-2", "0", (0, 0, 1)),
        ("0", "0.1", (1, 0, 0)),
        ("2", "-0.1", (1, 0, 0)),
        ("-2", "0.1", (0, 1, 0)),
    ],
)
def test_a_reported_result_is_counted_by_its_return_unless_that_is_opposite(pnl, roi, counts):
    trade = msgspec.structs.replace(reported_only(pnl), roi_reported=None if roi is None else Decimal(roi))
    summary = summarise([trade], user_id="u")
    reported = summary.reported
    assert (reported.wins, reported.losses, reported.draws) == counts
    assert reported.win_rate == counts[0]
    assert summary.statistics is not None
    series = summary.statistics.reported_series
    assert (series.max_consecutive_wins, series.max_consecutive_losses) == counts[:2]
    assert summary_from_counters(counted([trade]), user_id="u").reported == reported


def test_reported_averages_are_over_gains_and_falls_whatever_they_counted_as():
    draw = msgspec.structs.replace(reported_only("1"), roi_reported=Decimal(0))
    reported = summarise([draw, reported_only("3"), reported_only("-2")], user_id="u").reported
    assert (reported.wins, reported.losses, reported.draws, reported.trade_count) == (1, 1, 1, 3)
    assert (reported.profit, reported.average_win, reported.payoff) == (4, 2, 1)
    assert reported.win_rate == Decimal(1) / Decimal(3)
    assert (reported.profit_factor, reported.expectancy_ratio) == (2, pytest.approx(Decimal(1) / 3))


def test_names_of_a_caller_cannot_forge_a_counter():
    trade = closed(1, symbol="A/B|x~")
    trade = msgspec.structs.replace(trade, fees={"C|pnl~": Decimal(1)})
    for key in contribution(trade):
        assert key.count("|") == 2
        assert not key.endswith("~")
    parsed = parse_key("real|B%7Cx%7E|fee:C%7Cpnl%7E")
    assert parsed == ("real", "B|x~", "fee:C|pnl~")
    summary = summarise([trade], user_id="u")
    assert (summary.currency, summary.fees) == ("B|x~", {"C|pnl~": Decimal(1)})


def test_fields_that_are_no_counters_are_ignored():
    counters = contribution(closed(1)) | {"rev": 7}
    assert summary_from_counters(counters, user_id="u").pnl == 1


def test_a_summary_survives_json_without_exponents():
    trade = msgspec.structs.replace(closed("0.00000001"), pnl_reported=Decimal("1e-18"))
    text = json.dumps(summarise([trade], user_id="u").to_dict())
    figures = json.loads(text)
    assert figures["pnl"] == "0.00000001"
    assert figures["reported"]["pnl"] == "0.000000000000000001"
    assert figures["by_currency"]["USDT"]["best"] == figures["best"] == "0.00000001"
    assert figures["pairs"]["BTC/USDT"]["wins"] == 1


def test_signals_are_sliced_by_value_and_measurements_only_by_name():
    signals = {"rsi": -1, "nested": {"trend": True, "price": 1.5}, "tags": ["a", "b"], "text": "x" * 99}
    assert signal_keys(signals) == {"rsi=-1", "nested.trend=true", "nested.price", "tags=a", "tags=b", "text"}
    summary = summarise([closed(3, signals=signals), closed(-1, signals={"rsi": -1})], user_id="u")
    assert (summary.signals["rsi=-1"].pnl, summary.signals["tags=a"].pnl) == (2, 3)


def test_a_breakdown_is_bounded():
    trades = [opened(strategy=f"s{number}") for number in range(SLICES_MAX + 5)]
    statistics = summarise(trades, user_id="u").statistics
    assert statistics is not None
    assert len(statistics.strategies) == SLICES_MAX + 1
    assert statistics.strategies[OTHER].trade_count == 5


def test_a_currency_of_which_no_trade_could_be_read_has_statistics_of_nothing():
    found = summary_from_counters(counted([closed(1)]), user_id="u", fold=UserFold())
    assert (found.trade_count, found.archived_left_out) == (1, 1)
    assert found.statistics is not None
    assert found.statistics.best is None


def test_breakdowns_by_time_and_windows():
    start = 1_515_568_500_000_000
    trades = [closed(1, created_at=start, at=start), closed(2, created_at=start, at=start + 10 * DAY_US)]
    statistics = summarise(
        [*trades, closed(4, created_at=start, at=start + 10 * DAY_US)], user_id="u"
    ).statistics
    assert statistics is not None
    assert {day: part.pnl for day, part in statistics.by_day.items()} == {"2018-01-10": 1, "2018-01-20": 6}
    assert list(statistics.by_week) == ["2018-W02", "2018-W03"]
    assert statistics.by_month["2018-01"].closed == 3
    assert (statistics.windows["1d"].pnl, statistics.windows["30d"].pnl) == (6, 7)
    assert (statistics.durations.longest_s, statistics.durations.shortest_s) == (864_000, 0)
    assert (statistics.best, statistics.worst) == (4, 1)


def test_the_deposit_is_the_starting_balance_unless_one_is_given():
    trades = [closed(-5, deposit=Decimal(100)), closed(-5)]
    default = summarise(trades, user_id="u").statistics
    given_one = summarise(trades, user_id="u", starting_balance=Decimal(40)).statistics
    assert default is not None
    assert given_one is not None
    assert default.max_drawdown_relative == Decimal("0.1")
    assert given_one.max_drawdown_relative == Decimal("0.25")


symbols = st.sampled_from(["BTC/USDT", "ETH/BTC", "A/B:C"])
trades_of_a_user = st.lists(
    st.one_of(
        st.builds(closed, st.integers(-50, 50), symbol=symbols, source=st.sampled_from(Source)),
        st.builds(opened, symbol=symbols, source=st.sampled_from(Source), deposit=st.just(Decimal("10.5"))),
        st.builds(
            reported_only,
            st.sampled_from(["1.123456789012345678", "-2"]),
            symbol=symbols,
            roi_reported=st.sampled_from([None, Decimal(0), Decimal("0.5"), Decimal("-0.5")]),
        ),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(trades_of_a_user, st.sampled_from([None, "all", *Source]), st.sampled_from([None, "USDT", "nothing"]))
def test_counters_and_fold_give_the_same_blocks(trades, source, currency):
    folded = summarise(trades, user_id="u", source=source, currency=currency)
    read = summary_from_counters(counted(trades), user_id="u", source=source, currency=currency)
    assert msgspec.structs.asdict(read) == without_statistics(folded)


@settings(deadline=None, max_examples=20)
@given(trades_of_a_user, st.randoms())
def test_a_summary_does_not_depend_on_the_order_of_the_trades(trades, random):
    shuffled = random.sample(trades, len(trades))
    assert summarise(shuffled, user_id="u", source="all") == summarise(trades, user_id="u", source="all")


@settings(deadline=None, max_examples=20)
@given(trades_of_a_user)
def test_a_difference_of_contributions_moves_the_counters(trades):
    before = [opened() for _ in trades]
    counters = counted(before)
    for old, new in zip(before, trades, strict=True):
        add_counters(counters, {key: -number for key, number in contribution(old).items()})
        add_counters(counters, contribution(new))
    assert {key: number for key, number in counters.items() if number} == {
        key: number for key, number in counted(trades).items() if number
    }


@pytest.fixture(scope="module")
def backtest() -> dict[str, Any]:
    if not BACKTEST.exists():
        pytest.skip("the published backtest is not here")
    return json.loads(BACKTEST.read_text())["strategy"]["StrategyTestV3"]


def test_published_totals_of_a_backtest(backtest):
    summary = summarise(
        [_backtested(row) for row in backtest["trades"]],
        user_id="u",
        starting_balance=Decimal(str(backtest["starting_balance"])),
    )
    assert (summary.currency, summary.trade_count) == ("BTC", backtest["total_trades"])
    published = (backtest["wins"], backtest["losses"], backtest["draws"])
    assert (summary.wins, summary.losses, summary.draws) == published == (48, 9, 122)
    _assert_published_report(summary, backtest)
    statistics = summary.statistics
    assert statistics is not None
    assert statistics.durations.average_s is not None
    assert float(statistics.durations.average_s) == pytest.approx(backtest["holding_avg_s"], abs=60)


def _assert_published_report(summary: Summary, backtest: dict[str, Any]) -> None:
    reported, series = summary.reported, summary.statistics and summary.statistics.reported_series
    assert series
    assert float(reported.pnl) == pytest.approx(backtest["profit_total_abs"], rel=1e-12)
    assert float(reported.profit_factor or 0) == pytest.approx(backtest["profit_factor"], rel=1e-12)
    published = (backtest["wins"], backtest["losses"], backtest["draws"])
    assert (reported.wins, reported.losses, reported.draws) == published
    assert reported.win_rate == Decimal(48) / 179
    # The money of all 170 gains is averaged over all 170.
    assert reported.average_win == pytest.approx(reported.profit / 170)
    assert float(series.cagr or 0) == pytest.approx(backtest["cagr"], rel=1e-12)
    assert float(series.max_drawdown_abs) == pytest.approx(backtest["max_drawdown_abs"], rel=1e-12)
    share = series.max_drawdown_relative or 0
    assert float(share) == pytest.approx(backtest["max_relative_drawdown"], rel=1e-12)
    days = (series.winning_days, series.losing_days)
    assert days == (backtest["winning_days"], backtest["losing_days"])
    # Published to 9 and 10 places.
    assert float(series.best_day or 0) == pytest.approx(backtest["backtest_best_day_abs"], abs=1e-9)
    assert float(series.worst_day or 0) == pytest.approx(backtest["backtest_worst_day_abs"], abs=1e-9)
    dip = series.drawdown.by_amount
    assert (dip.high_at, dip.low_at) == (
        backtest["drawdown_start_ts"] * 1000,
        backtest["drawdown_end_ts"] * 1000,
    )


def _backtested(row: dict[str, Any]) -> Trade:
    amount, entry, leave = (Decimal(repr(row[name])) for name in ("amount", "open_rate", "close_rate"))
    start, end = int(row["open_timestamp"]) * 1000, int(row["close_timestamp"]) * 1000
    trade = opened(
        amount,
        entry,
        fee=amount * entry * Decimal(repr(row["fee_open"])),
        symbol=row["pair"],
        source=Source.BACKTEST,
        created_at=start,
    )
    fee = amount * leave * Decimal(repr(row["fee_close"]))
    trade = book_fill(trade, fill(trade, Role.EXIT, leave, fee, at=end))
    reported = Decimal(repr(row["profit_abs"])).quantize(Decimal("1e-18"))
    ratio = Decimal(repr(row["profit_ratio"]))
    return msgspec.structs.replace(trade, pnl_reported=reported, roi_reported=ratio)
