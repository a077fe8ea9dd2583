"""What must hold for every sequence of fills."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trade_builders import new_fill, new_trade
from tradepool.errors import InvalidTrade, Rejected
from tradepool.model.codec import decode_trade, encode_trade
from tradepool.model.money import CONTEXT, ZERO, quantise
from tradepool.model.pnl import DERIVED_FIELDS, book_fill, fold_fills, recompute, refigure
from tradepool.model.trade import Fill, Role, Status, Trade

LIMIT = settings(max_examples=60, deadline=None)


def scaled(lowest: int, highest: int) -> st.SearchStrategy[Decimal]:
    """Numbers of up to seven digits whose last place is anywhere from 10^lowest on, at most 10^highest."""
    digits, places = st.integers(1, 9_999_999), st.integers(lowest, highest)
    numbers = st.builds(lambda number, place: Decimal(number).scaleb(place), digits, places)
    return numbers.filter(lambda number: number <= Decimal(10) ** highest)


amounts = scaled(-8, 15)
prices = scaled(-12, 6)
fractions = st.decimals(min_value="0.01", max_value="0.99", places=2)
rates = st.decimals(min_value="0", max_value="0.009", places=3)
coins = st.sampled_from(["USDT", "ETH", None])
legs = st.tuples(amounts, prices, rates, coins)


@pytest.fixture(autouse=True)
def exact():
    """The tests' own sums need the model's precision."""
    with decimal.localcontext(CONTEXT):
        yield


def fee_of(amount: Decimal, price: Decimal, rate: Decimal, coin: str | None) -> Decimal:
    worth = amount if coin == "ETH" else amount * price
    return worth.quantize(Decimal("1e-12")) * rate


def entries_of(entry_legs: list[tuple[Any, ...]]) -> list[Fill]:
    return [
        new_fill(
            f"in{index}", "entry", amount, price, fee=fee_of(amount, price, rate, coin), fee_currency=coin
        )
        for index, (amount, price, rate, coin) in enumerate(entry_legs)
    ]


def blank_for(fills: list[Fill], **fields: Any) -> Trade:
    return new_trade(amount=sum((fill.amount for fill in fills if fill.role is Role.ENTRY), ZERO), **fields)


def exit_of(trade: Trade, index: int, leg: tuple[Any, ...], *, last: bool) -> Fill:
    """An exit of a part of what is held; a fee in the base coin is paid out of that part."""
    fraction, price, rate, coin = leg
    held = trade.open_amount
    part = held if last else (held * fraction).quantize(Decimal("1e-8"), rounding=decimal.ROUND_DOWN) or held
    fee = ZERO if coin == "ETH" else fee_of(part, price, rate, coin)
    if coin == "ETH":
        fee = (part * rate).quantize(Decimal("1e-15"), rounding=decimal.ROUND_DOWN)
        part -= fee
    return new_fill(f"out{index}", "exit", part, price, fee=fee, fee_currency=coin)


@st.composite
def flat_trades(draw: st.DrawFn, **fields: Any) -> Trade:
    """A trade of 1 to 4 entries, sold off in 1 to 4 exits."""
    entries = entries_of(draw(st.lists(legs, min_size=1, max_size=4)))
    trade = fold_fills(blank_for(entries, **fields), entries)
    exit_legs = draw(st.lists(st.tuples(fractions, prices, rates, coins), min_size=1, max_size=4))
    trade = msgspec.structs.replace(trade, status=Status.FILLED)
    for index, leg in enumerate(exit_legs):
        if not trade.is_open:
            break
        trade = book_fill(trade, exit_of(trade, index, leg, last=leg is exit_legs[-1]))
    return trade


def quote_flows(trade: Trade) -> Decimal:
    """What came in, in the quote coin, less what went out."""
    total = ZERO
    for fill in trade.fills:
        worth = fill.amount * fill.price
        total += worth if fill.role is Role.EXIT else -worth
        total -= fill.fee if fill.fee_currency in (None, "USDT") else ZERO
    return total


@given(flat_trades())
@LIMIT
def test_a_flat_spot_trade_earned_its_quote_cash_flows(trade):
    assert trade.status is Status.COMPLETED
    assert trade.pnl == quantise(quote_flows(trade))
    assert trade.pnl_cash == trade.pnl
    assert not trade.fee_unpriced


@given(flat_trades())
@LIMIT
def test_partial_exits_leave_no_residue(trade):
    assert (trade.open_amount, trade.open_cost, trade.open_fee) == (0, 0, 0)
    assert trade.unrealised("123.45") == 0
    assert trade.filled - trade.closed == trade.held_fees


@given(flat_trades())
@LIMIT
def test_an_audit_that_folds_the_fills_again_finds_the_same_trade(trade):
    assert recompute(trade) == trade


@given(flat_trades(), st.integers(min_value=0, max_value=8))
@LIMIT
def test_figures_do_not_depend_on_how_fills_were_batched(trade, cut):
    blank = blank_for(list(trade.fills))
    once = fold_fills(blank, trade.fills)
    twice = fold_fills(fold_fills(blank, trade.fills[:cut]), trade.fills[cut:])
    stored = decode_trade(encode_trade(fold_fills(blank, trade.fills[:cut])))
    assert once == twice == fold_fills(stored, trade.fills[cut:])
    for name in set(DERIVED_FIELDS) - {"outcome"}:
        assert getattr(once, name) == getattr(trade, name)


@st.composite
def cut(draw: st.DrawFn, fill: Fill) -> list[Fill]:
    """The fill in up to four parts, which add up to it."""
    shares = [*draw(st.lists(fractions, max_size=3)), Decimal(1)]
    parts, amount, fee = [], fill.amount, fill.fee
    for index, share in enumerate(shares):
        part, cost = ((rest * share).quantize(Decimal("1e-15")) for rest in (amount, fee))
        if share == 1:
            part, cost = amount, fee
        if part:
            parts.append(
                msgspec.structs.replace(fill, fill_id=f"{fill.fill_id}.{index}", amount=part, fee=cost)
            )
            amount, fee = amount - part, fee - cost
    return parts


MARKETS = {"spot": {}, "linear": {"side": "sell"}, "inverse": {"contract_size": 10}}


@st.composite
def lived_and_cut(draw: st.DrawFn) -> tuple[Trade, Trade]:
    """A trade with entries and exits in turns, open or flat in the end; and again with every fill cut."""
    market = draw(st.sampled_from(sorted(MARKETS)))
    blank = new_trade(amount="1e20", market=market, **MARKETS[market])
    whole = parts = msgspec.structs.replace(blank, status=Status.PARTIALLY_FILLED)
    for index, leg in enumerate(draw(st.lists(st.tuples(legs, fractions), min_size=1, max_size=6))):
        (amount, price, rate, coin), fraction = leg
        fill = new_fill(f"in{index}", "entry", amount, price, fee=fee_of(amount, price, rate, coin))
        if index > 1 and whole.open_amount and draw(st.booleans()):
            fill = exit_of(whole, index, (fraction, price, rate, None), last=False)
        if fill.role is Role.EXIT and fill.amount == whole.open_amount and draw(st.booleans()):
            break
        whole, parts = fold_fills(whole, (fill,)), fold_fills(parts, draw(cut(fill)))
    return whole, parts


def test_an_exit_in_parts_is_rounded_like_the_whole_one_where_it_lies_between_two_units():
    entries = [new_fill("a", "entry", 1, 1), new_fill("b", "entry", 2, 2)]
    open_trade = fold_fills(new_trade(amount=3), entries)
    whole = fold_fills(open_trade, [new_fill("c", "exit", "1.5", "3.00000001")])
    parts = [
        new_fill(f"c{index}", "exit", part, "3.00000001") for index, part in enumerate(("1", "0.4", "0.1"))
    ]
    in_parts = fold_fills(open_trade, parts)
    one_by_one = open_trade
    for part in parts:
        one_by_one = fold_fills(one_by_one, (part,))
    assert whole.pnl == in_parts.pnl == one_by_one.pnl == Decimal("2.00000002")
    assert whole.open_cost == in_parts.open_cost == one_by_one.open_cost == Decimal("2.5")


def test_an_exit_of_an_inverse_contract_in_parts_is_rounded_like_the_whole_one():
    blank = new_trade(market="inverse", contract_size=1, amount="0.000000035")
    open_trade = fold_fills(blank, [new_fill("a", "entry", "0.000000035", "3.5")])
    whole = fold_fills(open_trade, [new_fill("b", "exit", "0.000000035", "7")])
    sizes = ("0.00000001", "0.00000001", "0.000000015")
    parts = fold_fills(open_trade, [new_fill(f"b{i}", "exit", size, "7") for i, size in enumerate(sizes)])
    assert whole.pnl == parts.pnl == 0
    # The quotients do not add up to the whole one, which lies between two units.
    assert whole.exit_value != parts.exit_value


@pytest.mark.parametrize(
    ("amount", "price"),
    [("1", "50123.4"), ("0.01", "64123.45"), ("7", "31415.9"), ("0.00000001", "999999")],
)
def test_the_average_of_one_fill_of_an_inverse_contract_is_its_price(amount, price):
    blank = new_trade(market="inverse", contract_size=1, amount=amount)
    flat = fold_fills(blank, [new_fill("a", "entry", amount, price), new_fill("b", "exit", amount, price)])
    assert flat.average_entry == flat.average_exit == Decimal(price)


SUMS = {"entry_cost", "exit_value", "open_cost"}


@given(lived_and_cut())
@LIMIT
def test_figures_do_not_depend_on_the_parts_in_which_an_order_was_filled(trades):
    whole, parts = trades
    # Of an inverse contract every fill is a quotient, which is kept to 40 places.
    rounded = SUMS if whole.market == "inverse" else set()
    for name in set(DERIVED_FIELDS) - {"outcome", "roi_net"} - rounded:
        assert (name, getattr(parts, name)) == (name, getattr(whole, name))
    assert recompute(parts) == parts


@given(flat_trades(), st.sampled_from(["fifo", "lifo"]))
@LIMIT
def test_the_lots_of_a_flat_trade_sum_to_its_gross(trade, method):
    lots = trade.matched_lots(method)
    assert quantise(sum((lot.gross for lot in lots), ZERO)) == trade.pnl_gross
    assert sum((lot.amount for lot in lots), ZERO) == trade.closed


@given(flat_trades(), amounts, amounts)
@LIMIT
def test_funding_and_interest_are_added_to_the_pnl(trade, funding, interest):
    carried = refigure(msgspec.structs.replace(trade, funding=funding, interest=interest))
    assert carried.pnl == quantise(quote_flows(trade) + funding - interest)
    assert carried.pnl_gross == trade.pnl_gross


@given(flat_trades(market="margin"), st.decimals(min_value=1, max_value=100, places=1))
@LIMIT
def test_leverage_changes_the_return_and_never_the_pnl(trade, leverage):
    levered = refigure(msgspec.structs.replace(trade, leverage=leverage))
    assert levered.pnl == trade.pnl
    if trade.roi:
        assert abs(levered.roi - trade.roi * leverage) < Decimal("1e-15")


@given(st.lists(legs, min_size=1, max_size=4), st.lists(st.tuples(fractions, prices), min_size=1, max_size=4))
@LIMIT
def test_a_short_earns_what_the_long_loses(entry_legs, exit_legs):
    entries = [msgspec.structs.replace(fill, fee=ZERO) for fill in entries_of(entry_legs)]
    long = fold_fills(blank_for(entries, market="linear"), entries)
    for index, (fraction, price) in enumerate(exit_legs):
        leave = exit_of(long, index, (fraction, price, ZERO, None), last=False)
        long = fold_fills(long, (leave,))
        if not long.open_amount:
            break
    short = fold_fills(blank_for(entries, market="linear", side="sell"), long.fills)
    assert short.pnl == -long.pnl
    assert short.unrealised("7.5") == -long.unrealised("7.5")


junk_fills = st.builds(
    new_fill,
    st.sampled_from("abcdef"),
    st.sampled_from(["entry", "exit"]),
    st.decimals(min_value="0.1", max_value="2", places=1),
    st.decimals(min_value="1", max_value="9", places=0),
    fee=st.sampled_from(["0", "0.05", "-0.01"]),
    fee_currency=st.sampled_from([None, "ETH", "BNB"]),
)


@given(st.lists(junk_fills, max_size=12))
@LIMIT
def test_no_sequence_of_fills_breaks_the_books(fills):
    trade = new_trade()
    for fill in fills:
        try:
            trade = book_fill(trade, fill)
        except Rejected:
            continue
        assert 0 <= trade.closed <= trade.filled <= trade.amount
        assert 0 <= trade.open_amount <= trade.filled
        assert 0 <= trade.open_cost <= trade.entry_cost
        assert bool(trade.open_cost) == bool(trade.open_amount)
        assert recompute(trade) == trade
        assert decode_trade(encode_trade(trade)) == trade


def test_fifo_sells_the_oldest_entry_first_and_lifo_the_newest():
    trade = new_trade(amount=3)
    for fill in (
        new_fill("a", "entry", 1, 10),
        new_fill("b", "entry", 2, 20),
        new_fill("c", "exit", "1.5", 30, fee=1),
    ):
        trade = book_fill(trade, fill)
    assert [(lot.amount, lot.entry_price, lot.gross) for lot in trade.matched_lots("fifo")] == [
        (1, 10, 20),
        (Decimal("0.5"), 20, 5),
    ]
    assert [(lot.amount, lot.entry_price, lot.gross) for lot in trade.matched_lots("lifo")] == [
        (Decimal("1.5"), 20, 15)
    ]
    with pytest.raises(InvalidTrade, match="fifo"):
        trade.matched_lots("best")


def test_a_fee_in_a_third_coin_counts_at_its_rate_and_is_flagged_without_one():
    trade = book_fill(new_trade(), new_fill("a", "entry", 2, 2000, fee="0.01", fee_currency="BNB"))
    assert trade.fee_unpriced
    assert trade.fees == {"BNB": Decimal("0.01")}
    priced = book_fill(
        new_trade(), new_fill("a", "entry", 2, 2000, fee="0.01", fee_currency="BNB", fee_price=600)
    )
    assert (priced.fee_unpriced, priced.open_fee, priced.pnl_cash) == (False, 6, -6)


@pytest.mark.parametrize(("market", "side", "fee"), [("linear", "buy", "0.01"), ("margin", "sell", "0.01")])
def test_a_base_fee_that_no_holding_can_pay_counts_at_the_fills_price(market, side, fee):
    trade = new_trade(market=market, side=side)
    trade = book_fill(trade, new_fill("a", "entry", 2, 2000, fee=fee, fee_currency="ETH"))
    assert (trade.open_amount, trade.pnl_cash, trade.fee_unpriced) == (2, -20, False)


def test_a_quote_fee_of_an_inverse_contract_counts_in_its_base_coin():
    trade = new_trade(market="inverse", symbol="BTC/USD:BTC", contract_size=1, amount=100)
    trade = book_fill(trade, new_fill("a", "entry", 100, 30_000, fee=3, fee_currency="USD"))
    assert (trade.pnl_cash, trade.fee_unpriced, trade.fees) == (Decimal("-0.0001"), False, {"USD": 3})
    trade = book_fill(trade, new_fill("b", "exit", 100, 30_000, fee=1, fee_currency="USDT"))
    assert trade.fee_unpriced


def test_matched_pnl_counts_entry_fees_as_exits_happen_and_cash_pnl_at_once():
    trade = book_fill(new_trade(), new_fill("a", "entry", 2, 2000, fee=4))
    trade = book_fill(trade, new_fill("b", "exit", 1, 2100, fee=1))
    assert (trade.pnl, trade.pnl_cash) == (97, 95)
    assert trade.unrealised_net(2100, "0.001") == Decimal("95.9")


def test_coins_sold_that_the_trade_did_not_hold_are_flagged():
    trade = book_fill(new_trade(), new_fill("a", "entry", 2, 2000, fee="0.1", fee_currency="ETH"))
    assert trade.average_entry == 2000
    trade = book_fill(trade, new_fill("b", "exit", 2, 2100))
    assert (trade.open_amount, trade.pnl, trade.fee_unpriced) == (0, 200, True)
    assert trade.status is Status.COMPLETED
    assert recompute(trade) == trade


def test_the_callers_decimal_context_changes_no_figure():
    def booked() -> Trade:
        trade = book_fill(new_trade(amount=3), new_fill("a", "entry", 3, "0.123456789", fee="0.1"))
        return book_fill(trade, new_fill("b", "exit", 1, "0.987654321"))

    wide = booked()
    with decimal.localcontext() as narrow:
        narrow.prec = 4
        assert booked() == wide
        assert booked().average_entry == wide.average_entry
        assert booked().unrealised("0.5") == wide.unrealised("0.5")
