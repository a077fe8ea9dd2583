"""Loose dictionaries become trades: what is understood, kept, booked and refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tests.trade_builders import NOW_US, fill_fields, new_trade, trade_fields
from tradepool.errors import IdempotencyConflict, IllegalTransition, InvalidTrade, Rejected
from tradepool.model.intake import checked_changes, fill_from_dict, trade_from_dict
from tradepool.model.money import plain
from tradepool.model.pnl import recompute
from tradepool.model.trade import Direction, Fill, Market, Role, Side, Status, Trade, TradeOutcome

LEGACY_FOLDER = Path(__file__).parents[2] / "../shared/data/legacy"
AUGUST_US = 1_754_000_000_000_000


def test_a_minimal_trade_is_pending_long_spot_and_new():
    trade = new_trade()
    assert (trade.status, trade.market, trade.direction) == (Status.PENDING, Market.SPOT, Direction.LONG)
    assert (trade.version, trade.created_at, trade.updated_at) == (1, NOW_US, NOW_US)
    assert (trade.filled, trade.fills, trade.opened_at) == (0, (), None)


@pytest.mark.parametrize("missing", ["user_id", "symbol", "side", "amount"])
def test_what_every_trade_needs_is_asked_for_by_name(missing):
    fields = trade_fields()
    del fields[missing]
    with pytest.raises(InvalidTrade) as refusal:
        trade_from_dict(fields, now_us=NOW_US)
    assert refusal.value.field == missing


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", ""),
        ("user_id", "a\x1fb"),
        ("user_id", 7),
        ("user_id", "\ud800"),
        ("symbol", "BTCUSDT"),
        ("symbol", "BTC/"),
        ("side", "hold"),
        ("amount", 0),
        ("amount", "-1"),
        ("amount", "0.0000000000000000001"),
        ("price", 0),
        ("price", math.nan),
        ("leverage", "0.5"),
        ("contract_size", 0),
        ("market", "moon"),
        ("source", "dream"),
        ("status", "perhaps"),
        ("trade_id", "x" * 65),
        ("idempotency_key", "x" * 129),
        ("created_at", "soon"),
        ("timestamp", "soon"),
        ("fills", {"a": 1}),
        ("fills", [5]),
        ("fee", {"currency": "BNB"}),
        ("signals", []),
        ("extra", []),
        ("pnl", "much"),
        ("pnl", math.inf),
        ("stop_loss", -1),
    ],
)
def test_a_field_that_breaks_its_rule_is_named(field, value):
    with pytest.raises(InvalidTrade) as refusal:
        trade_from_dict(trade_fields(**{field: value}), now_us=NOW_US)
    assert refusal.value.field in {field, "fill", "signals", "extra"}


@pytest.mark.parametrize(
    ("symbol", "side", "market", "currency"),
    [
        ("ETH/USDT", "buy", Market.SPOT, "USDT"),
        ("ETH/USDT", "sell", Market.MARGIN, "USDT"),
        ("ETH/USDT:USDT", "sell", Market.LINEAR, "USDT"),
        ("ETH/USDC:USDT-251226", "buy", Market.LINEAR, "USDT"),
        ("BTC/USD:BTC", "buy", Market.INVERSE, "BTC"),
    ],
)
def test_an_unsaid_market_follows_from_symbol_and_side(symbol, side, market, currency):
    trade = new_trade(symbol=symbol, side=side, contract_size=1)
    assert (trade.market, trade.settlement_currency) == (market, currency)


def test_spot_is_long_only_and_inverse_needs_its_contract_size():
    with pytest.raises(InvalidTrade, match="long only"):
        new_trade(market="spot", side="sell")
    with pytest.raises(InvalidTrade, match="contract_size"):
        new_trade(market="inverse", symbol="BTC/USD")


def test_long_and_short_are_sides_too():
    assert new_trade(side="LONG").side is Side.BUY
    assert new_trade(side="short", market="margin").direction is Direction.SHORT


def test_unknown_fields_are_kept():
    trade = new_trade(order_type="limit", tag={"a": [1, None]}, extra={"mine": True})
    assert trade.extra == {"order_type": "limit", "tag": {"a": [1, None]}, "mine": True}


def test_the_callers_dictionaries_are_copied():
    signals = {"rsi": [30]}
    trade = new_trade(signals=signals)
    signals["rsi"].append(40)
    assert trade.signals == {"rsi": [30]}


def test_a_legacy_timestamp_becomes_created_at_and_is_kept_as_it_was():
    for stamp in ("2025-03-20T00:00:00+00:00", 1742428800, 1742428800000, 1742428800.0):
        trade = new_trade(timestamp=stamp)
        assert trade.created_at == 1_742_428_800_000_000
        assert trade.extra == {"timestamp": stamp}
    assert "timestamp" not in new_trade(timestamp=1_742_428_800_000_000).extra
    assert new_trade(timestamp=None).created_at == NOW_US
    moment = datetime(2025, 3, 20, tzinfo=UTC)
    assert new_trade(timestamp=moment).extra == {"timestamp": "2025-03-20T00:00:00+00:00"}


def test_json_fields_have_text_keys_and_16_kib_together():
    with pytest.raises(InvalidTrade) as refusal:
        new_trade(signals={1: "x"})
    assert refusal.value.field == "signals"
    with pytest.raises(InvalidTrade) as refusal:
        new_trade(signals={"a": "x" * 9000}, notebook="y" * 9000)
    assert "16384" in refusal.value.cure


@dataclass
class Reading:
    """A record of a bot, which the encoder takes for an object."""

    rsi: float


@pytest.mark.parametrize("name", ["signals", "signal_metrics", "market_conditions", "extra"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_in_json_at_any_depth(name, number):
    deep = {"a": [None, {"b": (number, "null")}]}
    for value in ({"rsi": number}, deep, {"r": Reading(number)}, {"n": np.array([1.0, number])}):
        with pytest.raises(InvalidTrade, match="finite") as refusal:
            new_trade(**{name: value})
        assert refusal.value.field == name
    with pytest.raises(InvalidTrade, match=r"a\.1\.b\.0"):
        new_trade(**{name: deep})


def test_none_and_the_word_null_are_json():
    signals = {"none": None, "word": "null", "list": [None, {"null": None}]}
    assert new_trade(signals=signals, unknown=None, extra={"r": Reading(1.5)}).signals == signals
    with pytest.raises(InvalidTrade) as refusal:
        new_trade(my_own=math.nan)
    assert refusal.value.field == "extra"


def test_a_user_id_has_at_most_128_characters():
    assert new_trade(user_id="x" * 128).user_id == "x" * 128
    with pytest.raises(InvalidTrade, match="128") as refusal:
        new_trade(user_id="x" * 129)
    assert refusal.value.field == "user_id"


def test_an_old_bots_return_of_0_is_not_known():
    trade = new_trade(pnl=12.5, roi=0, status="completed")
    assert (trade.roi_reported, trade.extra) == (None, {"roi": 0})
    assert new_trade(pnl=12.5, roi_reported=0, status="completed").roi_reported == 0


def test_a_filled_trade_gets_one_entry_fill_at_its_price():
    trade = new_trade(status="filled", fee="4", created_at=AUGUST_US)
    assert trade.status is Status.FILLED
    assert trade.fills == (
        Fill(
            fill_id="t1:entry",
            role=Role.ENTRY,
            amount=Decimal(2),
            price=Decimal(2000),
            fee=Decimal(4),
            at=AUGUST_US,
        ),
    )
    assert (trade.open_cost, trade.open_fee, trade.opened_at) == (4000, 4, AUGUST_US)
    with pytest.raises(InvalidTrade, match="price"):
        new_trade(status="filled", price=None)


def test_an_exit_price_closes_a_trade_at_add():
    trade = new_trade(exit_price="2100", fee=2, exit_fee=3, created_at=AUGUST_US, closed_at=AUGUST_US + 7)
    assert (trade.status, trade.outcome, trade.pnl) == (Status.COMPLETED, TradeOutcome.WIN, 195)
    assert [fill.fill_id for fill in trade.fills] == ["t1:entry", "t1:exit"]
    assert trade.closed_at == AUGUST_US + 7


def test_an_exit_with_a_base_fee_on_the_entry_sells_what_is_held():
    trade = new_trade(
        amount=1, exit_price="2100", fee="0.001", fee_currency="ETH", exit_fee=2, status="completed"
    )
    assert trade.closed == Decimal("0.999")
    assert trade.pnl == Decimal("95.9")


def test_completed_needs_closing_evidence():
    with pytest.raises(InvalidTrade, match="exit_price"):
        new_trade(status="completed")
    reported = new_trade(status="completed", pnl=-3.5)
    assert (reported.outcome, reported.pnl, reported.closed) == (TradeOutcome.LOSS, Decimal("-3.5"), 0)
    flat = new_trade(status="closed", pnl=0)
    assert (flat.status, flat.outcome) == (Status.COMPLETED, TradeOutcome.FLAT)


def test_given_fills_are_booked_in_the_order_of_their_times():
    fills = [
        fill_fields("b", "exit", "2", "2100", at=AUGUST_US + 2),
        fill_fields("a", "entry", "2", "2000", at=AUGUST_US),
    ]
    trade = new_trade(fills=fills)
    assert (trade.status, trade.pnl) == (Status.COMPLETED, 200)
    assert (trade.created_at, trade.opened_at, trade.closed_at) == (AUGUST_US, AUGUST_US, AUGUST_US + 2)
    assert recompute(trade) == trade


def test_the_amount_of_given_fills_need_not_be_said():
    fields = trade_fields(fills=[fill_fields("a", "entry", "2", "2000"), fill_fields("b", "entry", 1, 2000)])
    del fields["amount"]
    assert trade_from_dict(fields, now_us=NOW_US).amount == 3


def test_an_amount_that_is_not_said_is_the_exact_sum_of_the_entries_each_once():
    large, small = fill_fields("a", "entry", 10**15, 2), fill_fields("b", "entry", "1e-18", 2)
    fields = trade_fields(fills=[large, small, small, {**small, "fill_id": None}, {**small, "fill_id": None}])
    del fields["amount"]
    trade = trade_from_dict(fields, now_us=NOW_US)
    assert plain(trade.amount) == plain(trade.filled) == "1000000000000000.000000000000000003"
    assert trade.status == Status.FILLED


def test_ccxt_fills_are_understood():
    ccxt = {
        "id": "77",
        "order": "o1",
        "timestamp": AUGUST_US // 1000,
        "side": "sell",
        "amount": 2.0,
        "price": 2100.5,
        "fee": {"cost": 0.5, "currency": "USDT"},
    }
    trade = new_trade(fills=[fill_fields("a", "entry", 2, 2000, at=AUGUST_US), ccxt])
    exit_fill = trade.fills[1]
    assert (exit_fill.fill_id, exit_fill.order_id, exit_fill.role) == ("77", "o1", Role.EXIT)
    assert (exit_fill.fee, exit_fill.fee_currency) == (Decimal("0.5"), "USDT")
    with pytest.raises(InvalidTrade, match="role"):
        fill_from_dict(ccxt, now_us=NOW_US)


@pytest.mark.parametrize(
    ("fees", "fee"),
    [
        ([{"cost": 0.5, "currency": "USDT"}], ("0.5", "USDT")),
        ([{"cost": "0.5", "currency": "BNB"}, {"cost": 1, "currency": "BNB", "rate": 0.1}], ("1.5", "BNB")),
        ([{"cost": 0, "currency": "USDT"}, {"cost": 2, "currency": "BNB"}], ("2", "BNB")),
        ([{"cost": None, "currency": None}], ("0", None)),
    ],
)
def test_fees_in_one_coin_are_one_fee(fees, fee):
    told = fill_from_dict(fill_fields("a", "entry", 2, 2000, fee=None, fees=fees), now_us=NOW_US)
    assert (plain(told.fee), told.fee_currency) == fee


@pytest.mark.parametrize(
    "fees", [[{"cost": 1, "currency": "BNB"}, {"cost": 1, "currency": "USDT"}], {"BNB": 1}, [1], np.ones(2)]
)
def test_fees_that_are_not_one_fee_are_refused(fees):
    with pytest.raises(InvalidTrade, match="fees"):
        fill_from_dict(fill_fields("a", "entry", 2, 2000, fees=fees), now_us=NOW_US)


def test_ccxts_names_give_way_to_our_own_and_to_one_another():
    ccxt = {"id": None, "timestamp": None, "datetime": "2025-08-01T00:00:00Z", "order": "o2"}
    told = fill_from_dict(fill_fields("a", "entry", 2, 2000, order_id="o1") | ccxt, now_us=NOW_US)
    assert (told.fill_id, told.order_id, told.at) == ("a", "o1", 1_754_006_400_000_000)


def test_fills_that_cannot_be_are_refused():
    entry = fill_fields("a", "entry", "2", "2000")
    with pytest.raises(IllegalTransition):
        new_trade(fills=[fill_fields("a", "entry", "3", "2000")])
    with pytest.raises(IllegalTransition):
        new_trade(fills=[entry, fill_fields("b", "exit", "3", "2000")])
    with pytest.raises(IdempotencyConflict):
        new_trade(fills=[entry, fill_fields("a", "entry", "1", "2000")])
    with pytest.raises(InvalidTrade):
        new_trade(fills=[fill_fields("a", "entry", 1, 2000, fee=1, fee_currency="ETH")])
    assert new_trade(fills=[entry, entry]).filled == 2


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status": "filled", "fills": [fill_fields("a", "entry", "1", "2000")]}, "contradicts"),
        ({"status": "rejected", "fills": [fill_fields("a", "entry", "1", "2000")]}, "contradicts"),
        ({"status": "partially_filled"}, "filled"),
        ({"status": "pending", "exit_price": 5}, "exit_price"),
        ({"status": "partially_closed", "exit_price": 5}, "exit_price"),
        ({"status": "partially_closed", "closed": 1}, "exit_price"),
        ({"status": "filled", "created_at": AUGUST_US, "opened_at": AUGUST_US - 1}, "opened_at"),
        (
            {"exit_price": 5, "opened_at": AUGUST_US, "closed_at": AUGUST_US - 1, "created_at": 1},
            "closed_at",
        ),
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(fields, problem):
    with pytest.raises(InvalidTrade, match=problem):
        new_trade(**fields)


def test_known_quantities_are_booked():
    half = new_trade(status="partially_filled", filled="0.5")
    assert (half.status, half.open_amount, half.open_cost) == (Status.PARTIALLY_FILLED, Decimal("0.5"), 1000)
    part = new_trade(status="partially_closed", closed="0.5", exit_price=2100)
    assert (part.status, part.open_amount, part.pnl) == (Status.PARTIALLY_CLOSED, Decimal("1.5"), 50)
    cancelled = new_trade(status="canceled", filled="0.5")
    assert (cancelled.status, cancelled.amount, cancelled.amount_ordered) == (
        Status.FILLED,
        Decimal("0.5"),
        2,
    )


@pytest.mark.parametrize(
    ("fields", "status", "outcome", "noted"),
    [
        ({"status": "executed"}, Status.SUBMITTED, None, False),
        ({"status": "executed", "filled": 2}, Status.FILLED, None, False),
        ({"status": "executed", "filled": 1}, Status.PARTIALLY_FILLED, None, False),
        ({"status": "successful", "pnl": 0}, Status.FILLED, None, True),
        ({"status": "successful", "pnl": 4}, Status.COMPLETED, TradeOutcome.WIN, False),
        ({"status": "successful", "exit_price": 2100}, Status.COMPLETED, TradeOutcome.WIN, False),
        ({"status": "failed", "pnl": 0}, Status.REJECTED, None, False),
        ({"status": "failed", "pnl": -4}, Status.COMPLETED, TradeOutcome.LOSS, False),
        ({"status": "failed", "filled": 1}, Status.PARTIALLY_FILLED, None, True),
        ({"status": "partially_closed", "pnl": 4}, Status.PARTIALLY_CLOSED, None, False),
        ({"status": "pending", "pnl": 0.0}, Status.PENDING, None, False),
        ({"status": "open"}, Status.SUBMITTED, None, False),
    ],
)
def test_the_statuses_of_older_bots_are_read_by_their_evidence(fields, status, outcome, noted):
    trade = new_trade(**fields)
    assert (trade.status, trade.outcome) == (status, outcome)
    assert (trade.notes == ("legacy_ambiguous",)) is noted


def test_reported_figures_stand_beside_the_computed_ones():
    trade = new_trade(pnl=12.5, roi=0.12, status="partially_closed")
    assert (trade.pnl_reported, trade.roi_reported, trade.pnl) == (
        Decimal("12.5"),
        Decimal("0.12"),
        Decimal("12.5"),
    )
    assert new_trade(roi="N/A").extra == {"roi": "N/A"}
    assert new_trade(pnl=0.0).pnl_reported is None
    computed = new_trade(exit_price=2100, pnl=1)
    assert (computed.pnl_reported, computed.pnl) == (1, 200)


def test_the_payload_tells_requests_apart_and_not_deliveries():
    first = new_trade(amount="2.0", status="filled")
    assert (
        trade_from_dict(trade_fields(amount=2, status="filled"), now_us=5, trade_id="t9").payload
        == first.payload
    )
    named = trade_from_dict(trade_fields(status="filled", trade_id="mine"), now_us=5)
    assert (named.trade_id, named.payload) == ("mine", first.payload)
    assert new_trade(amount="2.1", status="filled").payload != first.payload
    assert new_trade(status="filled", signals={"a": 1}).payload != first.payload
    assert new_trade(signals={"a": 1, "b": 2}).payload == new_trade(signals={"b": 2, "a": 1}).payload


def test_a_trade_survives_its_dictionary():
    trade = new_trade(
        fills=[fill_fields("a", "entry", 2, 2000, fee="0.1", fee_currency="BNB")], exit_price=2100, tag="x"
    )
    written = json.loads(json.dumps(trade.to_dict()))
    assert Trade.from_dict(written) == trade
    assert written["pnl"] == "200"
    assert written["direction"] == "long"
    assert Trade.from_dict(written | {"later": 1}).extra == {"tag": "x", "later": 1}
    with pytest.raises(InvalidTrade):
        Trade.from_dict(written | {"amount": "x"})


def test_a_trade_added_again_from_its_dictionary_is_booked_alike():
    trade = new_trade(exit_price=2100, fee=1, exit_fee=2, created_at=AUGUST_US)
    again = trade_from_dict(trade.to_dict(), now_us=NOW_US + 5, trade_id="t1")
    assert (again.fills, again.pnl, again.status) == (trade.fills, trade.pnl, trade.status)
    assert (again.created_at, again.closed_at) == (trade.created_at, trade.closed_at)
    assert again.extra == {}


def test_a_trade_made_by_a_bot_without_id_or_time_gets_both():
    made = Trade(user_id="ann", symbol="ETH/USDT", side=Side.BUY, amount=Decimal(1), price=Decimal(5))
    trade = trade_from_dict(made, now_us=NOW_US, trade_id="t7")
    assert (trade.trade_id, trade.created_at) == ("t7", NOW_US)
    loose = Trade.from_dict(trade_fields(status="filled"))
    assert trade_from_dict(loose, now_us=NOW_US, trade_id="t8").fills[0].fill_id == "t8:entry"


def test_a_trade_is_not_related_to_itself():
    with pytest.raises(InvalidTrade, match="related_trade_id"):
        new_trade(related_trade_id="t1")


@pytest.mark.parametrize(
    "fixed", ["trade_id", "user_id", "symbol", "side", "pnl", "fills", "version", "wat", 5]
)
def test_what_is_fixed_for_life_cannot_be_changed(fixed):
    with pytest.raises(InvalidTrade) as refusal:
        checked_changes({fixed: "x"})
    assert refusal.value.field == str(fixed)


def test_changes_are_parsed_and_none_clears():
    changes = checked_changes({"stop_loss": 1.5, "strategy": None, "signals": None, "status": "OPEN"})
    assert changes == {"stop_loss": Decimal("1.5"), "strategy": None, "signals": {}, "status": "open"}
    with pytest.raises(InvalidTrade, match="amount"):
        checked_changes({"amount": None})


@pytest.mark.skipif(not LEGACY_FOLDER.exists(), reason="the old bot's files are not here")
def test_the_old_bots_file_is_taken_whole_but_for_rows_without_a_user():
    rows = json.loads((LEGACY_FOLDER / "trades.json").read_text())
    refused, taken = Counter(), []
    for row in rows:
        try:
            taken.append(trade_from_dict(row, now_us=NOW_US))
        except Rejected as refusal:
            refused[refusal.field] += 1
    assert set(refused) == {"user_id"}
    assert refused["user_id"] == sum(not row["user_id"] for row in rows)
    reported = sum((Decimal(repr(row["pnl"])) for row in rows if row["user_id"]), Decimal(0))
    assert sum((trade.pnl for trade in taken), Decimal(0)) == reported
    assert all(recompute(trade) == trade for trade in taken)


@pytest.mark.skipif(not LEGACY_FOLDER.exists(), reason="the old bot's files are not here")
def test_damaged_rows_are_refused_by_field():
    rows = json.loads((LEGACY_FOLDER / "trades-bad-rows.json").read_text())
    fields = []
    for row in rows:
        try:
            trade_from_dict(row, now_us=NOW_US)
        except InvalidTrade as refusal:
            fields.append(refusal.field)
    assert fields == ["pnl", "amount", "symbol", "price"]


def test_a_timestamp_in_early_seconds_is_read_once():
    trade = new_trade(timestamp=794916.035)

    assert trade.created_at == 794_916_035_000
    assert trade.extra["timestamp"] == 794916.035


def test_an_early_trade_survives_its_dictionary():
    trade = new_trade(timestamp=794916.035)

    assert Trade.from_dict(trade.to_dict()) == trade


@pytest.mark.parametrize(
    ("memory", "field"),
    [
        ({"notes": ["n" * 17_000]}, "notes"),
        ({"notes": ["note"] * 4000}, "notes"),
        ({"notes": ["\ud800"]}, "notes"),
        ({"pnl_as_of": -1}, "pnl_as_of"),
        ({"pnl_as_of": 10**30}, "pnl_as_of"),
        ({"field_times": {"price": 10**19}}, "field_times"),
        ({"field_times": {"price": -1}}, "field_times"),
        ({"field_times": {"nothing_of_ours": 1}}, "field_times"),
    ],
)
def test_what_a_record_says_that_a_pool_remembered_is_checked_like_all_else(memory, field):
    record = new_trade(status="filled").to_dict()
    with pytest.raises(InvalidTrade) as refused:
        trade_from_dict(record | memory, now_us=NOW_US)
    assert refused.value.field == field
