"""ccxt's lists as single venues fill them, and their pages in an order in which nobody should import them."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pytest

from tests.import_files import MemoryPool
from tradepool.importers import import_file

SWAP, OPTION = "BTC/USDT:USDT", "BTC/USD:BTC-240927-60000-C"
START_MS = 1_700_000_000_000
KRAKEN_ORDER = {
    "id": "OGMZCL-KC6MC-ZRBGM6",
    "symbol": "LTC/USDT",
    "side": "buy",
    "amount": 0.1,
    "filled": 0.1,
    "remaining": 0,
    "average": 71.05741,
    "price": 71.05741,
    "cost": 7.105741,
    "status": "closed",
    "timestamp": START_MS,
    "lastTradeTimestamp": None,
    "fee": {"cost": "0.018475", "rate": None, "currency": "USDT"},
    "fees": [{"cost": 0.018475, "rate": None, "currency": "USDT"}],
    "trades": [
        {"id": "TWA6QJ-ZO4EM-6QIHQJ", "symbol": "LTC/USDT", "info": {}, "amount": None, "price": None}
    ],
}
"""Kraken's orders list the ids of their fills, and nothing else of them."""


def fill(number, side, amount, price, *, symbol=SWAP, **more):
    row = {
        "id": str(number),
        "order": f"o{number}",
        "symbol": symbol,
        "side": side,
        "amount": amount,
        "price": price,
        "cost": amount * price,
        "timestamp": START_MS + number * 1000,
        "fee": None,
        "fees": [],
        "info": {},
    }
    return row | more


@pytest.fixture
def imported(tmp_path):
    """Import rows into a pool; every row is accounted for."""

    def run(pool, *rows):
        path = tmp_path / "list.json"
        path.write_text(json.dumps(rows))
        report = import_file(pool, path, user="anna", exchange="kraken")
        told = report.applied + report.merged + report.duplicate + len(report.refused) + len(report.idle)
        assert report.read == told == len(rows)
        return report

    return run


def books(pool):
    return sorted((str(t.side), [f.fill_id for f in t.fills], t.open_amount) for t in pool.trades.values())


class TestVenues:
    def test_an_order_that_lists_only_the_ids_of_its_fills_is_told_by_its_sums(self, imported):
        pool = MemoryPool()
        imported(pool, KRAKEN_ORDER)
        (trade,) = pool.trades.values()
        assert (trade.filled, trade.entry_cost) == (Decimal("0.1"), Decimal("7.105741"))
        assert trade.fees == {"USDT": Decimal("0.018475")}
        later = {"symbol": "LTC/USDT", "order": KRAKEN_ORDER["id"]}
        assert imported(pool, fill(1, "buy", 0.1, 71.05741, **later)).duplicate == 1

    @pytest.mark.parametrize("fees", [[], None, [{"cost": None, "currency": None}], [{"cost": 0}]])
    def test_a_fee_counts_where_the_list_of_fees_says_nothing(self, imported, fees):
        pool = MemoryPool()
        imported(pool, fill(1, "buy", 1, 10, fee={"cost": 0.01, "currency": "USDT"}, fees=fees))
        assert [trade.fees for trade in pool.trades.values()] == [{"USDT": Decimal("0.01")}]

    def test_a_payment_of_funding_in_the_list_of_fills_is_no_fill(self, imported):
        pool = MemoryPool()
        paid = fill(2, "sell", 1, 100, info={"execType": "Funding"})
        report = imported(pool, fill(1, "buy", 1, 100, info={"execType": "Trade"}), paid)
        assert (report.applied, len(report.idle)) == (1, 1)
        assert books(pool) == [("buy", ["1"], 1)]

    def test_an_option_priced_in_its_own_coin_is_refused_rather_than_valued_as_a_future(self, imported):
        pool = MemoryPool()
        rows = [fill(1, "buy", 1, 0.05, symbol=OPTION), fill(2, "sell", 1, 0.06, symbol=OPTION)]
        report = imported(pool, *rows, fill(3, "buy", 1, 900, symbol="BTC/USDT:USDT-240927-60000-C"))
        assert (report.applied, len(report.refused)) == (1, 2)
        assert "option" in report.refused[0].reason

    @pytest.mark.parametrize(
        ("costs", "size"),
        [
            ([(65.12, 0.65), (66, 0.66)], "0.01"),
            ([(65.12, 0.65), (600.1, 6.0)], "0.01"),
            ([(65.12, 0.66)], "0.01"),
            ([(2000, 3), (2400, 3.6)], "0.0015"),
            ([(65.12, 65.12), (66, 66.13)], "1"),
        ],
    )
    def test_the_size_of_contracts_shows_through_costs_that_are_rounded(self, imported, costs, size):
        pool = MemoryPool()
        imported(pool, *(fill(n, "buy", 1, price, cost=cost) for n, (price, cost) in enumerate(costs, 1)))
        (trade,) = pool.trades.values()
        assert trade.contract_size == Decimal(size)


class TestPagesOutOfOrder:
    """A page that is imported before what precedes it is grouped as if it began flat."""

    NEWER = (fill(3, "sell", 1, 110), fill(4, "buy", 1, 100))

    def test_no_fill_counts_twice_when_the_whole_history_follows(self, imported):
        pool = MemoryPool()
        imported(pool, *self.NEWER)
        before = books(pool)
        report = imported(pool, fill(1, "buy", 1, 90), *self.NEWER)
        assert len(report.refused) == 3
        assert all("without this history" in refusal.reason for refusal in report.refused)
        assert books(pool) == before == [("sell", ["3", "4"], 0)]

    def test_an_older_page_that_ends_open_is_refused(self, imported):
        pool = MemoryPool()
        imported(pool, *self.NEWER)
        report = imported(pool, fill(1, "buy", 1, 90))
        assert (report.applied, len(report.refused)) == (0, 1)

    def test_an_older_page_that_ends_flat_is_a_history_of_its_own(self, imported):
        pool = MemoryPool()
        imported(pool, *self.NEWER)
        assert imported(pool, fill(1, "buy", 1, 90), fill(2, "sell", 1, 91)).ok

    def test_a_flip_stands_or_falls_as_a_whole(self, imported):
        pool = MemoryPool()
        imported(pool, fill(4, "sell", 2, 100))
        imported(pool, fill(3, "buy", 1, 100), fill(4, "sell", 2, 100), fill(5, "sell", 1, 100))
        assert books(pool) == [("sell", ["4"], 2)]

    def test_longs_and_shorts_of_hedge_mode_have_histories_of_their_own(self, imported):
        pool = MemoryPool()
        long, short = ({"info": {"positionSide": side}} for side in ("LONG", "SHORT"))
        rows = [fill(2, "buy", 1, 10, **long), fill(3, "sell", 1, 10, **short), fill(5, "buy", 1, 10, **long)]
        imported(pool, fill(5, "buy", 1, 10, **long))
        first = imported(pool, *rows)
        state = books(pool)
        again = imported(pool, *rows)
        assert (len(first.refused), len(again.refused), again.duplicate) == (2, 2, 1)
        assert books(pool) == state == [("buy", ["5"], 1), ("sell", ["3"], 1)]
        assert max(Counter(f.fill_id for t in pool.trades.values() for f in t.fills).values()) == 1
