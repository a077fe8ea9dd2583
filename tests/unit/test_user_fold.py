"""A user's fold that trades enter, change in and leave is the fold over what is left."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradepool.errors import Corrupt
from tradepool.model import breakdown
from tradepool.model.codec import encode_trade
from tradepool.model.counters import closed_outcome
from tradepool.model.facts import Fact, fact_of
from tradepool.model.kinds import Market, Side, Source, Status, TradeOutcome
from tradepool.model.labels import DAY_US
from tradepool.model.money import from_units, to_units
from tradepool.model.trade import Trade
from tradepool.model.user_fold import UserFold

IDS = ("a", "b", "c", "d", "e")
SOURCES = (Source.REAL, Source.PAPER)

money = st.decimals(-(10**12), 10**12, places=8)
times = st.integers(0, 40 * DAY_US) | st.integers(0, 3)


@st.composite
def trades(draw) -> Trade:
    """Any trade a statistic could look at; not one that could have happened."""
    status = draw(st.sampled_from([Status.COMPLETED, Status.COMPLETED, Status.FILLED, Status.CANCELLED]))
    return Trade(
        trade_id=draw(st.sampled_from(IDS)),
        user_id="u",
        symbol=draw(st.sampled_from(["BTC/USDT", "ETH/BTC", "A/B:BTC"])),
        side=draw(st.sampled_from(Side)),
        amount=Decimal(1),
        closed=draw(st.sampled_from([Decimal(0), Decimal(1)])),
        market=draw(st.sampled_from([Market.SPOT, Market.INVERSE])),
        version=draw(st.integers(1, 9)),
        pnl_net=draw(money),
        pnl_reported=draw(st.none() | st.decimals(-9, 9, places=18)),
        roi_reported=draw(st.none() | st.decimals(-1, 1, places=4)),
        status=status,
        outcome=draw(st.sampled_from([None, *TradeOutcome])) if status == Status.COMPLETED else None,
        source=draw(st.sampled_from(SOURCES)),
        strategy=draw(st.sampled_from([None, "s1", "s2"])),
        close_reason=draw(st.sampled_from([None, "stop"])),
        signals=draw(st.sampled_from([{}, {"rsi": 1}, {"rsi": 2, "x": [1.5, True]}])),
        deposit=draw(st.none() | st.just(Decimal("10.000000000000000001"))),
        created_at=draw(times),
        opened_at=draw(st.none() | times),
        closed_at=draw(st.none() | times),
        updated_at=draw(times),
    )


def fact(trade: Trade) -> Fact:
    return fact_of(encode_trade(trade))


def told(fold: UserFold) -> dict[str, Any]:
    return {source: fold.statistics(source, {}) for source in (*SOURCES, "all")}


steps = st.lists(
    st.tuples(st.lists(trades(), max_size=3), st.lists(st.sampled_from(IDS), max_size=2), st.booleans()),
    max_size=6,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_a_fold_that_changed_says_what_a_new_one_of_the_same_trades_says(moves):
    changed, left = UserFold(), {}
    for entered, dropped, is_looked_at in moves:
        now = {trade.trade_id: fact(trade) for trade in entered}
        changed.change(now.values(), dropped=[name for name in dropped if name not in now])
        left = {name: each for name, each in left.items() if name not in dropped} | now
        if is_looked_at:
            told(changed)
    fresh = UserFold(left.values())
    assert told(changed) == told(fresh)
    for source in (*SOURCES, "all"):
        assert changed.trade_count(source) == fresh.trade_count(source)
    assert {name: changed.get(name) for name in IDS} == {name: left.get(name) for name in IDS}


@settings(max_examples=40)
@given(trades())
def test_a_fact_is_what_the_trade_itself_says(trade):
    found = fact(trade)
    assert from_units(found.pnl // 10**10) == from_units(to_units(trade.pnl))
    assert found.outcome == closed_outcome(trade.status, trade.outcome, trade.pnl)
    assert (found.labels.source, found.labels.currency) == (trade.source, trade.settlement_currency)
    keys = dict(found.labels.keys)
    assert (keys["pairs"], keys["sides"], keys["exchanges"]) == (trade.symbol, trade.side, trade.exchange)
    assert keys["strategies"] == (trade.strategy or "(none)")
    assert ("close_reasons" in keys) == (found.outcome is not None)
    assert (found.trade_id, found.version) == (trade.trade_id, trade.version)


def test_the_defaults_that_a_record_leaves_out_are_those_of_a_trade():
    outline = {field.name: field.default for field in msgspec.structs.fields(fact_of.__globals__["_Outline"])}
    defaults = {field.name: field.default for field in msgspec.structs.fields(Trade)}
    outline.pop("signals")
    assert outline == {name: defaults[name] for name in outline} | {"trade_id": msgspec.NODEFAULT}


def test_trades_that_differ_in_measurements_alone_share_their_labels():
    def with_signals(signals: dict[str, Any]) -> Fact:
        trade = Trade(
            trade_id="a", user_id="u", symbol="A/B", side=Side.BUY, amount=Decimal(1), signals=signals
        )
        return fact(trade)

    first = with_signals({"rsi": 31.5, "up": True}).labels
    assert with_signals({"rsi": 29.25, "up": True}).labels is first
    assert with_signals({"rsi": 29.25, "up": False}).labels is not first


def test_what_is_no_trade_has_no_fact():
    with pytest.raises(Corrupt):
        fact_of(b'{"trade_id": 7}')


def test_a_bounded_breakdown_shows_the_largest_slices_whatever_came_first(monkeypatch):
    monkeypatch.setattr(breakdown, "SLICES_MAX", 2)
    names = ["c", "b", "b", "a", "a", "d", breakdown.OTHER]
    made = [
        fact(Trade(trade_id=str(number), user_id="u", symbol="A/B", side=Side.BUY, amount=1, strategy=name))
        for number, name in enumerate(names)
    ]
    for order in (made, made[::-1]):
        fold = UserFold()
        for each in order:
            fold.change([each])
        shown = fold.statistics("real", {})["B"].strategies
        assert {name: part.trade_count for name, part in shown.items()} == {"a": 2, "b": 2, "(other)": 3}
    fold.change([], dropped=["0", "3", "5", "6"])
    assert set(fold.statistics("real", {})["B"].strategies) == {"a", "b"}
