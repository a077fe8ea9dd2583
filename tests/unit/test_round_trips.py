"""Executions of a venue grouped to round trips: nothing is lost, nothing invented, wherever a list is cut."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepool.errors import InvalidTrade
from tradepool.model import intake
from tradepool.model.kinds import Market, Role, Side
from tradepool.model.round_trips import FLIPPED, Execution, RoundTrip, Unheld, round_trips

CASES = Path(__file__).parents[2] / "../shared/cases/pnl.json"
SWAP = "BTC/USDT:USDT"


def executed(*facts, coin=None):
    """Executions from (side, amount, price[, fee]), a second apart."""
    return [
        Execution(
            fill_id=str(number),
            side=Side(side),
            amount=Decimal(amount),
            price=Decimal(price),
            fee=Decimal(fee[0]) if fee else Decimal(0),
            fee_currency=coin,
            at=number * 1_000_000,
        )
        for number, (side, amount, price, *fee) in enumerate(facts, 1)
    ]


def grouped(executions, *, market=Market.LINEAR, symbol=SWAP, begun=None):
    return list(round_trips(executions, market=market, symbol=symbol, begun=begun))


def told(trips):
    return [(t.side, t.is_flat, [(f.fill_id, f.role, f.amount, f.fee) for f in t.fills]) for t in trips]


def booked(trip, *, market=Market.LINEAR, symbol=SWAP):
    """The trip in the model's books."""
    entered = sum(fill.amount for fill in trip.fills if fill.role is Role.ENTRY)
    facts = {"user_id": "u", "symbol": symbol, "market": market, "side": trip.side, "amount": entered}
    return intake.trade_from_dict(facts | {"fills": list(trip.fills)}, now_us=1, trade_id="t")


def test_the_published_flip_splits_into_its_two_trades():
    case = {
        "orders": [["buy", "1000", "1.07"], ["sell", "2000", "1.08"], ["buy", "1000", "1.09"]],
        "fee_per_fill": "1",
        "trades_gross": ["10", "-10"],
        "trades_fees": ["2", "1"],
    }
    if CASES.exists():
        published = {case["id"]: case for case in json.loads(CASES.read_text())}
        assert published["flip-splits"].items() >= case.items()
    orders = [(*order, case["fee_per_fill"]) for order in case["orders"]]
    trades = [booked(trip) for trip in grouped(executed(*orders))]
    assert [trade.pnl_gross for trade in trades] == [Decimal(gross) for gross in case["trades_gross"]]
    assert [trade.fees["USDT"] for trade in trades] == [Decimal(fee) for fee in case["trades_fees"]]
    assert [trade.direction for trade in trades] == ["long", "short"]
    assert trades[0].fills[1].fill_id + FLIPPED == trades[1].fills[0].fill_id


def test_adding_and_taking_off_is_one_trade_until_nothing_is_left():
    facts = [
        ("sell", "2", "10"),
        ("buy", "1", "9"),
        ("sell", "3", "11"),
        ("buy", "4", "8"),
        ("sell", "1", "7"),
    ]
    first, second = grouped(executed(*facts))
    assert (first.side, first.is_flat, len(first.fills)) == (Side.SELL, True, 4)
    assert (second.side, second.is_flat, len(second.fills)) == (Side.SELL, False, 1)


def test_a_spot_account_cannot_sell_what_it_did_not_buy():
    facts = [("sell", "5", "9"), ("buy", "1", "10"), ("sell", "1.5", "11"), ("buy", "2", "10")]
    early, closed, beyond, still_open = grouped(executed(*facts), market=Market.SPOT, symbol="BTC/USDT")
    assert [(type(found), found.amount) for found in (early, beyond)] == [
        (Unheld, 5),
        (Unheld, Decimal("0.5")),
    ]
    assert [fill.amount for fill in closed.fills] == [1, 1]
    assert not still_open.is_flat


def test_a_fee_in_the_bought_coin_is_not_there_to_be_sold():
    buy = executed(("buy", "1", "2000", "0.001"), coin="ETH")
    sell = executed(("sell", "0.999", "2100", "2"), coin="USDT")
    sale = Execution(**{n: getattr(sell[0], n) for n in Execution.__struct_fields__} | {"fill_id": "2"})
    (trip,) = grouped([*buy, sale], market=Market.SPOT, symbol="ETH/USDT")
    assert trip.is_flat
    assert booked(trip, market=Market.SPOT, symbol="ETH/USDT").pnl == Decimal("95.9")


def test_a_flips_fee_in_the_bought_coin_is_taken_from_what_it_opens():
    executions = executed(("sell", "1", "10"), ("buy", "3", "9", "0.003"), ("sell", "1.997", "9"), coin="BTC")
    short, long = grouped(executions, market=Market.MARGIN, symbol="BTC/USDT")
    assert told([short]) == [(Side.SELL, True, [("1", Role.ENTRY, 1, 0), ("2", Role.EXIT, 1, 0)])]
    assert (long.is_flat, long.fills[0].fill_id, long.fills[0].fee) == (True, "2#2", Decimal("0.003"))
    assert booked(long, market=Market.MARGIN, symbol="BTC/USDT").status == "completed"


def test_a_fee_that_takes_the_whole_fill_is_refused():
    with pytest.raises(InvalidTrade, match="takes the whole fill"):
        grouped(executed(("buy", "1", "10", "1"), coin="ETH"), market=Market.SPOT, symbol="ETH/USDT")


def test_executions_of_one_instant_are_booked_in_the_order_they_were_told():
    told_at_once = [
        Execution(
            fill_id=f"{number}", side=Side(side), amount=Decimal(amount), price=Decimal(price), at=1_000
        )
        for number, (side, amount, price) in enumerate([("buy", 2, 10), ("sell", 1, 12), ("buy", 1, 20)])
    ]
    (trip,) = grouped(told_at_once)
    assert [fill.at for fill in trip.fills] == [1_000, 1_000, 1_001]
    assert booked(trip).pnl_gross == 2


def test_a_fee_in_coins_that_are_all_sold_leaves_nothing_open():
    facts = executed(("buy", "1", "10"), ("sell", "1", "11", "0.1"), ("buy", "1", "10"), coin="ETH")
    first, second = grouped(facts, market=Market.SPOT, symbol="ETH/USDT")
    assert (first.is_flat, second.is_flat) == (True, False)
    assert booked(first, market=Market.SPOT, symbol="ETH/USDT").status == "completed"


FACTS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.decimals("0.00000001", "1000", places=8),
        st.decimals("0.01", "100000", places=2),
        st.decimals("-1", "5", places=6),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(facts=FACTS, market=st.sampled_from([Market.LINEAR, Market.SPOT]))
def test_the_parts_add_up_to_what_was_executed(facts, market):
    executions = executed(*facts, coin="USDT")
    found = grouped(executions, market=market, symbol="BTC/USDT" if market is Market.SPOT else SWAP)
    trips = [trip for trip in found if isinstance(trip, RoundTrip)]
    unheld = {found.execution.fill_id: found.amount for found in found if isinstance(found, Unheld)}
    parts = [fill for trip in trips for fill in trip.fills]
    for execution in executions:
        own = [fill for fill in parts if fill.fill_id in (execution.fill_id, execution.fill_id + FLIPPED)]
        assert sum(fill.amount for fill in own) + unheld.get(execution.fill_id, 0) == execution.amount
        assert not own or sum(fill.fee for fill in own) == execution.fee
        assert {fill.price for fill in own} <= {execution.price}
    assert all(trip.is_flat for trip in trips[:-1])
    for trip in trips:
        trade = booked(trip, market=market, symbol="BTC/USDT" if market is Market.SPOT else SWAP)
        assert (trade.status == "completed") == trip.is_flat


@settings(max_examples=40)
@given(facts=FACTS, market=st.sampled_from([Market.LINEAR, Market.SPOT]), data=st.data())
def test_a_history_cut_anywhere_gives_the_same_trips(facts, market, data):
    executions = executed(*facts)
    cut = data.draw(st.integers(0, len(executions)))
    symbol = "BTC/USDT" if market is Market.SPOT else SWAP
    whole = [t for t in grouped(executions, market=market, symbol=symbol) if isinstance(t, RoundTrip)]
    early = [t for t in grouped(executions[:cut], market=market, symbol=symbol) if isinstance(t, RoundTrip)]
    begun = early.pop() if early and not early[-1].is_flat else None
    late = grouped(executions[cut:], market=market, symbol=symbol, begun=begun)
    assert told(whole) == told([*early, *(t for t in late if isinstance(t, RoundTrip))])


@settings(max_examples=40)
@given(facts=FACTS)
def test_cash_in_and_out_of_flat_trips_is_their_pnl(facts):
    trips = [trip for trip in grouped(executed(*facts, coin="USDT")) if trip.is_flat]
    for trip in trips:
        sign = {(Side.BUY, Role.ENTRY): -1, (Side.BUY, Role.EXIT): 1}
        flows = [
            sign.get((trip.side, f.role), 1 if f.role is Role.ENTRY else -1) * f.amount * f.price - f.fee
            for f in trip.fills
        ]
        assert booked(trip).pnl == sum(flows).quantize(Decimal("1e-8"))
