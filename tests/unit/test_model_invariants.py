"""What the model's short cuts rest on: figures stay canonical, and one fold has one result."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trade_builders import NOW_US, fill_fields, new_fill, new_trade, trade_fields
from tradepool.errors import Rejected
from tradepool.model.changes import add, change
from tradepool.model.codec import decode_trade, encode_trade, pack_trade, read_header
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, TradeCommand, UpdateTrade, UpdateTradePnl
from tradepool.model.counters import contribution, parse_key
from tradepool.model.digests import digest_of
from tradepool.model.kinds import Market, Side, Status, TradeOutcome
from tradepool.model.money import CONTEXT, ONE, ZERO, canonical, minus, plus, to_units
from tradepool.model.pnl import book_fill, recompute
from tradepool.model.symbols import coins_of
from tradepool.model.trade import Trade

LIMIT = settings(max_examples=60, deadline=None)

numbers = st.decimals(min_value="-1e15", max_value="1e15", places=6) | st.decimals(
    min_value="-1e5", max_value="1e5", places=18
)
small = st.decimals(min_value="0.01", max_value="3", places=2)
prices = st.decimals(min_value="0.0001", max_value="90000", places=4)
spellings = st.sampled_from(["{}", "{}00", "+{}", " {} "])
symbols = st.sampled_from(["ETH/USDT", "ETH/USDT:USDT", "ETH/USD:ETH", "ETH/USD:ETH-250627", "A~|%/é"])


def commands(number: int) -> st.SearchStrategy[TradeCommand]:
    known: dict[str, Any] = {"command_id": f"c{number}", "as_of": NOW_US + number, "trade_id": "t1"}
    fills = st.fixed_dictionaries(
        {"fill_id": st.just(f"f{number}"), "role": st.sampled_from(["entry", "exit"])}
        | {"amount": st.builds(str.format, spellings, small), "price": prices},
        optional={"fee": small, "fee_currency": st.sampled_from(["USDT", "ETH", "BNB"])},
    )
    figures = {"funding": numbers, "interest": small, "leverage": st.integers(1, 9), "deposit": small}
    order = {
        "amount": small,
        "price": prices,
        "status": st.sampled_from(["submitted", "filled", "cancelled"]),
    }
    changes = st.fixed_dictionaries({}, optional=figures | order)
    return st.one_of(
        st.builds(AddFill, fill=fills, **{name: st.just(value) for name, value in known.items()}),
        prices.map(lambda price: CloseTrade(price=price, fee="0.10", **known)),
        changes.map(lambda given_changes: UpdateTrade(changes=given_changes, **known)),
        numbers.map(lambda pnl: UpdateTradePnl(pnl=pnl, **known)),
    )


@st.composite
def lived(draw: st.DrawFn) -> Trade:
    """A trade that was added and then changed a few times, by whatever was not refused."""
    fields = trade_fields(
        symbol=draw(symbols),
        side=draw(st.sampled_from(["buy", "sell"])),
        status=draw(st.sampled_from(["pending", "filled"])),
        amount=draw(spellings).format(draw(small)),
        price=draw(prices),
        contract_size=draw(st.sampled_from(["1", "10", "0.50"])),
        source=draw(st.sampled_from(["real", "paper"])),
    )
    trade = add(AddTrade(command_id="add", as_of=NOW_US, trade=fields), trade_id="t1", existing=None).trade
    for number in range(draw(st.integers(0, 5))):
        try:
            trade = change(trade, draw(commands(number))).trade
        except Rejected:
            continue
    return trade


def decimals_of(trade: Trade) -> list[Decimal]:
    held = [getattr(trade, name) for name in Trade.__struct_fields__]
    held += [getattr(fill, name) for fill in trade.fills for name in fill.__struct_fields__]
    return [value for value in [*held, *trade.fees.values()] if isinstance(value, Decimal)]


@given(lived())
@LIMIT
def test_every_figure_of_a_trade_is_canonical_whatever_happened_to_it(trade):
    for value in decimals_of(trade):
        assert str(value) == str(canonical(value))
        assert "E+" not in str(value)


@given(lived())
@LIMIT
def test_quantities_stay_in_order_whatever_was_ordered_further_or_taken_back(trade):
    assert 0 <= trade.closed <= trade.filled <= trade.amount
    assert trade.amount_ordered is None or trade.amount == trade.filled <= trade.amount_ordered
    assert bool(trade.open_cost) == bool(trade.open_amount) or trade.status is Status.COMPLETED


@given(lived())
@LIMIT
def test_a_trade_read_back_is_the_same_to_the_byte_and_folds_to_itself(trade):
    body = encode_trade(trade)
    assert encode_trade(decode_trade(body)) == body
    assert recompute(trade) == trade
    assert encode_trade(recompute(trade)) == body
    header = read_header(pack_trade(trade))
    assert header == (trade.version, digest_of(body), "t", trade.status.code)


def counted(trade: Trade) -> dict[str, Decimal]:
    """The money a trade counts for, from its public figures."""
    money = {
        "pnl": trade.pnl,
        "net": trade.pnl_net,
        "gross": trade.pnl_gross,
        "funding": trade.funding,
        "interest": trade.interest,
        "volume": trade.contract_size * (trade.entry_cost + trade.exit_value),
        "deposit": trade.deposit or ZERO,
    }
    if trade.outcome is not None:
        money |= {"profit": max(trade.pnl, ZERO), "loss_sum": max(-trade.pnl, ZERO)}
        money |= {"gross_profit": max(trade.pnl_gross, ZERO), "gross_loss": max(-trade.pnl_gross, ZERO)}
    return money | {f"fee:{coin}": fee for coin, fee in trade.fees.items()}


@given(lived())
@LIMIT
def test_a_contribution_is_the_trades_own_figures_in_units(trade):
    with decimal.localcontext(CONTEXT):
        money = {name: to_units(amount) for name, amount in counted(trade).items()}
    counts = {"trades": 1, "open": int(trade.is_open), "closed": int(trade.outcome is not None)}
    if trade.outcome is not None:
        counts[
            {TradeOutcome.WIN: "win", TradeOutcome.LOSS: "loss", TradeOutcome.FLAT: "flat"}[trade.outcome]
        ] = 1
    keys = {parse_key(key): number for key, number in contribution(trade).items()}
    assert {(key.source, key.currency) for key in keys} == {(trade.source, trade.settlement_currency)}
    found = {key.name: number for key, number in keys.items()}
    told = {name: number for name, number in found.items() if name.startswith("reported")}
    assert found == {name: number for name, number in (counts | money).items() if number} | told
    assert bool(told) == (trade.pnl_reported is not None)


@given(numbers, numbers)
def test_sums_and_differences_of_canonical_numbers_are_exact_and_canonical(first, second):
    x, y = canonical(first), canonical(second)
    with decimal.localcontext(CONTEXT):
        assert (plus(x, y), minus(x, y)) == (x + y, x - y)
    for result in (plus(x, y), minus(x, y), plus(x, ZERO), plus(ZERO, y), minus(x, x)):
        assert str(result) == str(canonical(result))


@given(numbers, st.integers(0, 12))
def test_canonical_takes_zeros_and_exponents_away_however_the_number_came(x, zeros):
    rescaled = x.scaleb(zeros).scaleb(-zeros).normalize(CONTEXT)
    longer = CONTEXT.multiply(x, Decimal((0, (1, *[0] * zeros), -zeros)))
    assert str(canonical(rescaled)) == str(canonical(longer)) == str(canonical(x))
    assert canonical(Decimal("1e0")) is ONE


@pytest.mark.parametrize("decoded", [True, False])
def test_a_trade_of_plain_text_and_one_of_enums_share_their_terms(decoded):
    trade = new_trade(symbol="BTC/USD:BTC", contract_size=10)
    if decoded:
        trade = decode_trade(encode_trade(trade))
    told = msgspec.structs.replace(trade, market="inverse", side="buy")
    assert told.terms == trade.terms
    assert (told.terms.market, told.terms.side) == (Market.INVERSE, Side.BUY)
    assert told.terms.market is Market.INVERSE


@pytest.mark.parametrize(
    ("symbol", "coins"),
    [
        ("BTC/USDT", ("BTC", "USDT", "")),
        ("BTC/USDT:USDT", ("BTC", "USDT", "USDT")),
        ("BTC/USD:BTC-250627", ("BTC", "USD", "BTC")),
        ("BTC/USDT:USDT-251226-100-C", ("BTC", "USDT", "USDT")),
        ("BTC", ("BTC", "", "")),
    ],
)
def test_a_symbol_names_its_coins(symbol, coins):
    assert coins_of(symbol) == coins


def test_names_that_came_from_json_make_the_same_trade():
    fields = trade_fields(status="completed", exit_price="2100", signals={"rsi": 1})
    fresh = {"".join(list(name)): value for name, value in fields.items()}
    trades = [
        add(AddTrade(command_id="c", as_of=NOW_US, trade=given_fields), trade_id="t1", existing=None).trade
        for given_fields in (fields, fresh)
    ]
    assert encode_trade(trades[0]) == encode_trade(trades[1])


def test_what_no_fill_touches_is_the_same_object():
    trade = new_trade(status="filled", signals={"rsi": 1})
    leave = new_fill("x", "exit", "0.5", 2100)
    after = change(trade, AddFill(command_id="c", as_of=NOW_US, trade_id="t1", fill=leave.to_dict())).trade
    assert after.fees is trade.fees
    assert after.entry_cost is trade.entry_cost
    assert trade.fills == after.fills[:1]


def test_a_trades_own_fees_never_change_under_it():
    trade = new_trade(status="filled", fee="0.5")
    before = dict(trade.fees)
    change(trade, CloseTrade(command_id="c", as_of=NOW_US, trade_id="t1", price="2100", fee="2"))
    assert trade.fees == before
    assert recompute(new_trade()).fees == {}
    assert recompute(new_trade()).fees is not recompute(new_trade()).fees


def test_an_inverse_contract_counts_in_its_base_coin_also_where_the_symbol_does_not_say_so():
    trade = new_trade(symbol="ETH/USD", market="inverse", contract_size=10, status="filled")
    linear = new_trade(symbol="ETH/USD", market="linear", status="filled")
    assert {parse_key(key).currency for key in contribution(trade)} == {"ETH"}
    assert {parse_key(key).currency for key in contribution(linear)} == {"USD"}


def test_a_trade_told_as_completed_with_something_left_open_is_noted():
    fills = [
        {"fill_id": "a", "role": "entry", "amount": 2, "price": 2000},
        {"fill_id": "b", "role": "exit", "amount": 1, "price": 2100},
    ]
    assert new_trade(status="completed", fills=fills).notes == ("completed_with_open_amount",)


def test_a_change_of_status_is_dated_like_every_other():
    told = UpdateTrade(command_id="c", as_of=NOW_US + 5, trade_id="t1", changes={"status": "submitted"})
    assert change(new_trade(), told).trade.field_times == {"status": NOW_US + 5}


def test_an_exit_told_before_its_entry_of_the_same_moment_is_booked_after_it():
    fills = [fill_fields("b", "exit", 2, 2100, at=NOW_US), fill_fields("a", "entry", 2, 2000, at=NOW_US)]
    trade = new_trade(fills=fills)
    assert [fill.fill_id for fill in trade.fills] == ["a", "b"]
    assert trade.pnl == 200


def test_a_fee_told_beside_the_entry_fills_is_kept_and_not_booked():
    trade = new_trade(fee="0.15", fills=[fill_fields("a", "entry", 2, 2000, fee=1)])
    assert (trade.fees, trade.extra) == ({"USDT": 1}, {"fee": "0.15"})


def test_a_trade_is_closed_when_its_last_exit_happened_however_late_the_others_are_told():
    fills = [
        new_fill("a", "entry", 2, 2000, at=NOW_US + 1),
        new_fill("c", "exit", 1, 2100, at=NOW_US + 9),
        new_fill("b", "exit", 1, 2100, at=NOW_US + 5),
    ]
    told_at_once, one_by_one = new_trade(fills=fills), new_trade()
    for fill in fills:
        one_by_one = book_fill(one_by_one, fill)
    assert one_by_one.closed_at == told_at_once.closed_at == NOW_US + 9
