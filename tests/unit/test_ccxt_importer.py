"""ccxt's lists of fills and orders: every row ends as part of a trade, as a repeat, as idle or refused."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.import_files import MemoryPool, entries
from tradepool.errors import Rejected
from tradepool.importers import Format, IdleRow, MarketHistory, RefusedRow, import_file, resolved
from tradepool.model.commands import UpdateTrade
from tradepool.model.kinds import Market

SWAP, INVERSE = "BTC/USDT:USDT", "BTC/USD:BTC"
START_MS = 1_712_497_717_270


def fill(number, side, amount, price, *, symbol="RAY/USDT", **more):
    """A row of `fetch_my_trades`, in the shape that ccxt gives it."""
    fee = {"cost": 6.48e-06, "currency": "BNB"}
    row = {
        "info": {"id": str(number), "commissionAsset": "BNB"},
        "timestamp": START_MS + number * 1000,
        "datetime": "2024-04-07T13:48:37.270Z",
        "symbol": symbol,
        "id": str(number),
        "order": f"o{number}",
        "type": None,
        "side": side,
        "takerOrMaker": "taker",
        "price": price,
        "amount": amount,
        "cost": price * amount,
        "fee": fee,
        "fees": [fee],
    }
    return row | more


def order(number, side, amount, average, *, symbol="BTC/USDT", **more):
    """A row of `fetch_orders`."""
    row = {
        "info": {},
        "id": f"8f19a935-{number}",
        "clientOrderId": None,
        "timestamp": START_MS + number * 1000,
        "datetime": "2023-06-26T13:59:13.344Z",
        "lastTradeTimestamp": None,
        "symbol": symbol,
        "type": "market",
        "timeInForce": "IOC",
        "postOnly": False,
        "side": side,
        "price": average,
        "triggerPrice": None,
        "amount": amount,
        "cost": amount * average,
        "average": average,
        "filled": amount,
        "remaining": 0,
        "status": "closed",
        "fee": None,
        "trades": [],
        "fees": [],
    }
    return row | more


@pytest.fixture
def listed(tmp_path):
    def write(*rows, name="my_trades.json"):
        path = tmp_path / name
        path.write_text(json.dumps(rows))
        return path

    return write


def imported(pool, path, **said):
    return import_file(pool, path, **({"user": "anna", "exchange": "binance"} | said))


def state(pool):
    """What the trades are, without what tells how they came to be."""
    names = ("version", "updated_at", "payload", "applied", "field_times", "extra")
    kept = (t.to_dict() for t in pool.trades.values())
    return sorted(json.dumps({k: v for k, v in t.items() if k not in names}, sort_keys=True) for t in kept)


def accounted(report):
    """The rows that a report tells what became of, which are all of them."""
    told = report.applied + report.merged + report.duplicate + len(report.refused) + len(report.idle)
    assert report.read == told
    return told


class TestFills:
    def test_a_round_trip_of_spot_fills_is_one_trade_with_every_digit(self, listed):
        pool = MemoryPool()
        rows = fill(1, "buy", 2.4, 2.1129), fill(2, "buy", 1.6, 2.2), fill(3, "sell", 4.0, 2.5)
        report = imported(pool, listed(*rows))
        assert (report.format, report.read, report.applied, report.merged, report.refused) == (
            "ccxt",
            3,
            1,
            2,
            (),
        )
        (trade,) = pool.trades.values()
        assert (trade.status, trade.exchange, trade.source, trade.market) == (
            "completed",
            "binance",
            "import",
            "spot",
        )
        assert trade.entry_cost == Decimal("2.4") * Decimal("2.1129") + Decimal("3.52")
        assert (trade.fees, trade.fee_unpriced) == ({"BNB": Decimal("0.00001944")}, True)
        assert [(f.fill_id, f.order_id) for f in trade.fills] == [("1", "o1"), ("2", "o2"), ("3", "o3")]
        assert trade.created_at == (START_MS + 1000) * 1000
        assert trade.extra == {"ccxt": {"takerOrMaker": "taker"}}

    def test_markets_and_accounts_are_kept_apart(self, listed):
        pool = MemoryPool()
        path = listed(fill(1, "buy", 1, 10), fill(1, "sell", 1, 10, symbol=SWAP))
        imported(pool, path)
        imported(pool, path, account="second")
        assert len(pool.trades) == 4

    def test_the_order_of_the_rows_does_not_matter(self, listed):
        rows = [
            fill(n, side, 1, 10 + n, symbol=SWAP) for n, side in enumerate(["buy", "sell", "sell", "buy"], 9)
        ]
        pools = MemoryPool(), MemoryPool()
        for pool, ordered in zip(pools, (rows, rows[::-1]), strict=True):
            imported(pool, listed(*[row | {"timestamp": START_MS} for row in ordered]))
        assert state(pools[0]) == state(pools[1])
        assert [trade.status for trade in pools[0].trades.values()] == ["completed"] * 2

    def test_of_one_millisecond_a_file_newest_first_is_read_from_its_end(self, listed):
        rows = [
            fill(n, side, 1, 10 + n, symbol=SWAP, id=letter, timestamp=START_MS + (n > 1))
            for n, (side, letter) in enumerate([("buy", "z"), ("buy", "b"), ("sell", "a"), ("sell", "c")])
        ]
        pools = MemoryPool(), MemoryPool()
        for pool, ordered in zip(pools, (rows, rows[::-1]), strict=True):
            imported(pool, listed(*ordered))
        assert state(pools[0]) == state(pools[1])
        (trade,) = pools[1].trades.values()
        assert [f.fill_id for f in trade.fills] == ["z", "b", "a", "c"]

    def test_a_fill_that_flips_counts_once(self, listed):
        pool = MemoryPool()
        rows = [fill(1, "buy", 1, 10, symbol=SWAP), fill(2, "sell", 3, 11, symbol=SWAP)]
        report = imported(pool, listed(*rows))
        assert (report.read, report.applied, report.merged) == (2, 2, 0)
        longer = imported(pool, listed(*rows, fill(3, "buy", 3, 9, symbol=SWAP)))
        assert longer.read == longer.applied + longer.merged + longer.duplicate == 3
        assert sorted(trade.open_amount for trade in pool.trades.values()) == [0, 0, 1]

    def test_fees_in_two_coins_are_both_booked(self, listed):
        pool = MemoryPool()
        fees = [{"cost": 0.5, "currency": "USDT"}, {"cost": 0.001, "currency": "BNB"}]
        imported(pool, listed(fill(1, "buy", 1, 10, fees=fees), fill(2, "sell", 1, 11, fees=[], fee=None)))
        (trade,) = pool.trades.values()
        assert trade.fees == {"USDT": Decimal("0.5"), "BNB": Decimal("0.001")}
        assert (trade.filled, trade.status, len(trade.fills)) == (1, "completed", 3)

    def test_a_rebate_and_a_fee_without_a_cost_are_what_they_are(self, listed):
        pool = MemoryPool()
        rebate, unknown = {"cost": -0.25, "currency": "USDT"}, {"cost": None, "currency": None}
        imported(
            pool,
            listed(fill(1, "buy", 1, 10, fees=[rebate]), fill(2, "sell", 1, 10, fee=unknown, fees=[unknown])),
        )
        (trade,) = pool.trades.values()
        assert trade.pnl == Decimal("0.25")

    def test_fills_without_ids_get_the_same_ones_every_time(self, listed):
        pool = MemoryPool()
        path = listed(fill(1, "buy", 1, 10, id=None), fill(2, "sell", 1, 11, id=None, order=None))
        assert imported(pool, path).applied == 1
        assert imported(pool, path).applied == 0

    def test_numbers_and_times_may_be_texts(self, listed):
        pool = MemoryPool()
        texts = {"price": "1.685133171", "amount": "9", "cost": "15.16619854", "timestamp": "1690535984000"}
        imported(pool, listed(fill(1, "buy", 9, 1, symbol="USDT/AUD", id=7) | texts))
        (trade,) = pool.trades.values()
        assert (trade.price, trade.created_at) == (Decimal("1.685133171"), 1690535984000000)
        assert trade.fills[0].fill_id == "7"


class TestContracts:
    def test_the_size_of_a_contract_follows_from_the_cost(self, listed):
        pool = MemoryPool()
        linear = [order(1, "buy", 1000, 20933, symbol=SWAP, cost=20.933)]
        inverse = [
            fill(1, "sell", 100000, 10000, symbol=INVERSE, cost=10, fees=[], fee=None),
            fill(2, "buy", 100000, 11000, symbol=INVERSE, cost=9.090909, fees=[], fee=None),
        ]
        imported(pool, listed(*linear, *inverse))
        by_symbol = {trade.symbol: trade for trade in pool.trades.values()}
        assert (by_symbol[SWAP].market, by_symbol[SWAP].contract_size) == ("linear", Decimal("0.000001"))
        assert (by_symbol[INVERSE].market, by_symbol[INVERSE].contract_size) == ("inverse", 1)
        assert by_symbol[INVERSE].pnl == Decimal("-0.90909091")

    def test_a_size_that_the_rows_do_not_tell_can_be_named(self, listed):
        path = listed(fill(1, "buy", 5, 10000, symbol=INVERSE, cost=None))
        (refusal,) = imported(MemoryPool(), path).refused
        assert "--contract-size" in refusal.reason
        pool = MemoryPool()
        assert imported(pool, path, contract_size=Decimal(100)).applied == 1
        assert next(iter(pool.trades.values())).contract_size == 100

    def test_costs_that_contradict_each_other_are_no_guess(self, listed):
        rows = fill(1, "buy", 5, 100, symbol=SWAP, cost=5), fill(2, "sell", 5, 100, symbol=SWAP, cost=500)
        assert len(imported(MemoryPool(), listed(*rows)).refused) == 2


class TestHedgeMode:
    def test_longs_and_shorts_of_an_account_that_keeps_them_apart_are_not_netted(self, listed):
        sides = [("buy", "LONG"), ("sell", "SHORT"), ("buy", "LONG"), ("buy", "SHORT"), ("sell", "LONG")]
        rows = [
            fill(n, side, 1, 10 + n, symbol=SWAP, info={"positionSide": position})
            for n, (side, position) in enumerate(sides)
        ]
        whole, paged = MemoryPool(), MemoryPool()
        imported(whole, listed(*rows))
        for start, end in ((0, 2), (1, 4), (4, 5)):
            assert imported(paged, listed(*rows[start:end])).refused == ()
        assert state(paged) == state(whole)
        long, short = sorted(whole.trades.values(), key=lambda trade: trade.side)
        assert (long.direction, long.filled, long.open_amount) == ("long", 2, 1)
        assert (short.direction, short.status, short.pnl_gross) == ("short", "completed", -2)

    def test_a_history_that_begins_inside_a_position_opens_no_other_one(self, listed):
        row = fill(1, "sell", 1, 10, symbol=SWAP, info={"posSide": "long"})
        (refusal,) = imported(MemoryPool(), listed(row)).refused
        assert "closes more than this history opened" in refusal.reason


class TestOrders:
    def test_done_orders_count_with_what_was_filled_of_them(self, listed):
        pool = MemoryPool()
        part = order(2, "sell", 4, 12, status="canceled", filled=1.5, remaining=2.5)
        rest = order(3, "sell", 1, 13) | {"filled": None, "remaining": 0.5, "average": None, "cost": 6.5}
        report = imported(pool, listed(order(1, "buy", 2, 10), part, rest))
        assert (report.applied, report.merged, report.refused) == (1, 2, ())
        (trade,) = pool.trades.values()
        assert (trade.status, trade.exit_value, trade.pnl) == ("completed", Decimal("24.5"), Decimal("4.5"))

    def test_orders_that_never_filled_are_idle_and_no_error(self, listed):
        rows = [order(n, "buy", 1, 9, filled=0, status=s) for n, s in enumerate(["open", "canceled", None])]
        report = imported(MemoryPool(), listed(*rows))
        assert (report.read, len(report.idle), report.ok) == (3, 3, True)
        assert "canceled" in report.idle[1].reason

    def test_an_order_still_open_and_partly_filled_waits(self, listed):
        half = order(1, "buy", 2, 10, status="open", filled=1, remaining=1)
        (refusal,) = imported(MemoryPool(), listed(half)).refused
        assert "still open, and partly filled" in refusal.reason
        told = half | {"trades": [fill(1, "buy", 1, 10, symbol="BTC/USDT")]}
        assert imported(MemoryPool(), listed(told)).applied == 1

    def test_fills_inside_an_order_take_its_place(self, listed):
        pool = MemoryPool()
        inside = [{"id": n, "price": 10.0, "amount": 0.5, "timestamp": START_MS} for n in ("a", "b")]
        imported(pool, listed(order(1, "buy", 1, 10, trades=inside)))
        (trade,) = pool.trades.values()
        assert [(f.fill_id, f.order_id) for f in trade.fills] == [("a", "8f19a935-1"), ("b", "8f19a935-1")]

    def test_an_order_that_lists_only_some_of_its_fills_counts_as_a_whole(self, listed):
        pool = MemoryPool()
        inside = [{"id": "a", "price": 10.0, "amount": 0.5, "timestamp": START_MS}]
        imported(pool, listed(order(1, "buy", 1, 12, trades=inside)))
        (trade,) = pool.trades.values()
        assert [(f.fill_id, f.amount, f.price) for f in trade.fills] == [("order:8f19a935-1", 1, 12)]

    def test_an_order_and_its_fills_in_one_file_count_once(self, listed):
        own = [fill(n, "buy", 0.5, 10, symbol="BTC/USDT", order="8f19a935-1") for n in (1, 2)]
        pool = MemoryPool()
        report = imported(pool, listed(*own, order(1, "buy", 1, 10)))
        assert (report.applied, report.merged, report.duplicate) == (1, 1, 1)
        less = imported(MemoryPool(), listed(own[0], order(1, "buy", 1, 10)))
        assert "not all of its fills" in less.refused[0].reason

    @pytest.mark.parametrize("orders_first", [True, False])
    def test_fills_and_orders_imported_one_after_the_other_count_once(self, listed, orders_first):
        sides = ["buy", "sell", "buy"]
        lists = [
            listed(*[order(n, side, 1, 10 + n) for n, side in enumerate(sides)], name="orders.json"),
            listed(
                *[
                    fill(n, s, 1, 10 + n, symbol="BTC/USDT", order=f"8f19a935-{n}")
                    for n, s in enumerate(sides)
                ],
                name="fills.json",
            ),
        ]
        pool = MemoryPool()
        imported(pool, lists.pop(0 if orders_first else 1))
        before = state(pool)
        report = imported(pool, lists[0])
        assert (report.applied, report.duplicate, report.refused) == (0, 3, ())
        assert state(pool) == before


class TestRefusals:
    @pytest.mark.parametrize("before", [[None], [17, None]])
    def test_a_list_is_known_by_its_first_object(self, listed, before):
        report = imported(
            MemoryPool(), listed(*before, fill(1, "buy", 1, 10) | {"timestamp": None}, fill(2, "buy", 1, 10))
        )
        assert (report.format, report.applied) == ("ccxt", 1)

    def test_objects_on_lines_of_their_own_are_no_list(self, tmp_path):
        lines = tmp_path / "fills.jsonl"
        lines.write_text("\n".join(json.dumps(fill(number, "buy", 1, 10)) for number in range(3)))
        with pytest.raises(Rejected, match=r"not a JSON array.*in \[ and \]"):
            imported(MemoryPool(), lines)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"symbol": None}, "symbol: not a text"),
            ({"symbol": "BTCUSDT"}, "symbol: not a symbol"),
            ({"side": None}, "side: unknown"),
            ({"amount": 0}, "amount: not positive"),
            ({"amount": "much"}, "amount: not a number"),
            ({"price": None, "cost": None}, "price: not a number"),
            ({"price": float("nan")}, "price: not finite"),
            ({"timestamp": None, "datetime": None}, "timestamp: missing"),
            ({"timestamp": 1e300}, "timestamp: not a time"),
            ({"fees": [{"cost": "dear", "currency": "USDT"}]}, "fee: not a number"),
            ({"fees": [{"cost": 5, "currency": "RAY"}]}, "fee: takes the whole fill"),
            ({"id": "x" * 200}, "id: empty or too long"),
            ({"amount": 2}, "another fill with this id"),
        ],
    )
    def test_a_bad_row_is_refused_where_it_stands_and_the_others_go_in(self, listed, change, problem):
        report = imported(
            MemoryPool(),
            listed(fill(1, "buy", 1, 10), fill(1 if "amount" in change else 2, "buy", 1, 10) | change),
        )
        assert (report.applied, report.read) == (1, 2)
        ((position, reason),) = report.refused
        assert position == "my_trades.json row 2 (line 1)"
        assert problem in reason

    def test_what_was_not_bought_cannot_be_sold_on_spot(self, listed):
        rows = fill(1, "sell", 5, 10), fill(2, "buy", 1, 10), fill(3, "sell", 3, 11)
        report = imported(MemoryPool(), listed(*rows))
        assert (report.read, report.applied, report.merged) == (3, 1, 0)
        assert [(r.position[-13:], "--market margin" in r.reason) for r in report.refused] == [
            ("row 1 (line 1)"[-13:], True),
            ("row 3 (line 1)"[-13:], True),
        ]
        shorts = imported(pool := MemoryPool(), listed(*rows), market=Market.MARGIN)
        assert (shorts.refused, [t.direction for t in pool.trades.values()]) == ((), ["short"])

    def test_a_list_without_a_user_is_one_clear_error(self, listed):
        with pytest.raises(Rejected, match="--user"):
            entries(listed(fill(1, "buy", 1, 10)))

    def test_a_torn_list_gives_its_whole_rows(self, listed):
        path = listed(fill(1, "buy", 1, 10), fill(2, "sell", 1, 10))
        path.write_text(path.read_text()[:-40])
        torn, history = entries(path, user="anna")
        assert isinstance(torn, RefusedRow)
        assert isinstance(history, MarketHistory)
        assert len(history.rows) == 1

    def test_what_is_no_list_of_fills_is_not_taken_for_one(self, listed):
        (single := listed()).write_text(json.dumps(fill(1, "buy", 1, 10)))
        with pytest.raises(Rejected, match="not a JSON array"):
            entries(single, user="anna", file_format=Format.CCXT)
        assert not list(resolved(entries(listed(), user="anna", file_format=Format.CCXT)))
        idle = resolved(entries(listed(order(1, "buy", 1, 9, filled=0)), user="anna"))
        assert [type(entry) for entry in idle] == [IdleRow]


class TestRepeats:
    def test_a_second_import_changes_nothing(self, listed):
        pool = MemoryPool()
        path = listed(*[fill(n, side, 1, 10) for n, side in enumerate(["buy", "sell", "buy"])])
        imported(pool, path)
        before = dict(pool.trades)
        report = imported(pool, path)
        assert (report.applied, report.duplicate, report.merged, report.refused) == (0, 2, 1, ())
        assert pool.trades == before

    def test_a_longer_history_carries_the_open_trade_on(self, listed):
        rows = [
            fill(n, side, 1, 10 + n) for n, side in enumerate(["buy", "sell", "buy", "buy", "sell", "sell"])
        ]
        pool, whole = MemoryPool(), MemoryPool()
        imported(pool, listed(*rows[:3]))
        assert imported(pool, listed(*rows)).refused == ()
        imported(whole, listed(*rows))
        assert state(pool) == state(whole)
        assert imported(pool, listed(*rows[:3])).applied == 0

    def test_a_fill_before_booked_ones_is_refused(self, listed):
        pool = MemoryPool()
        imported(pool, listed(fill(1, "buy", 1, 10), fill(3, "sell", 1, 11)))
        report = imported(pool, listed(fill(2, "buy", 1, 10), fill(3, "sell", 1, 11)))
        assert ["older than fills that are booked" in refusal.reason for refusal in report.refused] == [True]
        assert report.duplicate == 1

    def test_a_fill_between_those_of_an_open_trade_is_refused(self, listed):
        rows = [fill(1, "buy", 1, 10), fill(2, "buy", 1, 10), fill(3, "sell", 0.5, 11)]
        pool = MemoryPool()
        imported(pool, listed(rows[0], rows[2]))
        (refusal,) = imported(pool, listed(*rows)).refused
        assert "another trade was added under this id" in refusal.reason
        assert next(iter(pool.trades.values())).filled == 1

    def test_an_order_enlarged_by_hand_ends_at_what_was_filled(self, listed):
        pool = MemoryPool()
        rows = [fill(1, "buy", 1, 10), fill(2, "buy", 1, 10)]
        imported(pool, listed(rows[0]))
        (trade_id,) = pool.trades
        later = (START_MS + 10**9) * 1000
        larger = UpdateTrade(command_id="c", as_of=later, trade_id=trade_id, changes={"amount": 9})
        assert pool.apply([larger])[0].outcome == "applied"
        imported(pool, listed(*rows))
        assert (pool.trades[trade_id].amount, pool.trades[trade_id].filled) == (2, 2)

    def test_a_fill_that_changed_is_refused(self, listed):
        pool = MemoryPool()
        imported(pool, listed(fill(1, "buy", 1, 10), fill(2, "sell", 1, 11)))
        changed = imported(pool, listed(fill(2, "sell", 1, 12)))
        assert "booked differently" in changed.refused[0].reason

    def test_what_was_not_held_is_refused_for_that_again(self, listed):
        pool = MemoryPool()
        rows = fill(1, "buy", 1, 10), fill(2, "sell", 3, 11), fill(3, "buy", 1, 10)
        for page in (rows[:2], rows[1:]):
            (refusal,) = imported(pool, listed(*page)).refused
            assert "closes more than this history opened (got 2)" in refusal.reason

    def test_a_trade_that_a_bot_keeps_is_left_to_it(self, listed):
        pool = MemoryPool()
        imported(pool, listed(fill(1, "buy", 1, 10)))
        (own,) = pool.trades.values()
        pool.trades = {
            "bot": type(own)(**{n: getattr(own, n) for n in own.__struct_fields__} | {"trade_id": "bot"})
        }
        report = imported(pool, listed(fill(1, "buy", 1, 10), fill(2, "sell", 1, 11)))
        assert (report.duplicate, len(report.refused)) == (1, 1)
        assert "no import made" in report.refused[0].reason


FEES = st.sampled_from(
    [
        [],
        [{"cost": 0.001, "currency": "RAY"}],
        [{"cost": 0.01, "currency": "USDT"}, {"cost": 0.02, "currency": "BNB"}],
    ]
)
FACTS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell"]),
        st.sampled_from([0.5, 0.999, 1, 1.999, 3]),
        st.integers(8, 12),
        st.sampled_from([0, 0, 1000]),
        FEES,
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=20)
@given(
    facts=FACTS,
    symbol=st.sampled_from([SWAP, "RAY/USDT"]),
    cuts=st.sets(st.integers(1, 13)),
    overlap=st.integers(0, 3),
)
def test_the_pages_of_a_history_make_the_trades_of_the_whole(tmp_path_factory, facts, symbol, cuts, overlap):
    path = tmp_path_factory.mktemp("pages") / "list.json"
    rows, at = [], START_MS
    for number, (side, amount, price, gap_ms, fees) in enumerate(facts, 1):
        at += gap_ms
        more = {"timestamp": at, "fees": fees, "fee": None}
        rows.append(fill(number, side, amount, price, symbol=symbol, **more))
    whole, paged = MemoryPool(), MemoryPool()
    path.write_text(json.dumps(rows))
    assert accounted(imported(whole, path)) == len(rows)
    ends = sorted({min(cut, len(rows)) for cut in cuts} | {len(rows)})
    for start, end in zip([0, *ends], ends, strict=False):
        page = rows[max(0, start - overlap) : end]
        path.write_text(json.dumps(page))
        assert accounted(imported(paged, path)) == len(page)
    assert state(paged) == state(whole)
