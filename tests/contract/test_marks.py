"""The marks that stay readable, and the prices they are made at."""

from __future__ import annotations

from decimal import Decimal

import pytest
import structlog

from tests.loose_trades import buy
from tradepool import TradePool, errors
from tradepool.clock import now_us
from tradepool.marking.tick import Tick
from tradepool.settings import Settings

NEW_YEAR_S = 1_767_225_600
MAX_AGE_S = 60
WRONG_PRICES = (
    ({"BTC/USDT": "120", "ETH/USDT": "0"}, None, "price of ETH/USDT"),
    ({"BTC/USDT": "120", "ETH/USDT": "a lot"}, None, "price of ETH/USDT"),
    ({"BTC/USDT": "120", "": "1"}, None, "symbol of a price"),
    ({"BTC/USDT": "120"}, "yesterday", "at"),
    ([("BTC/USDT", "120")], None, "prices"),
)


@pytest.fixture
def pool(tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=4) as opened:
        yield opened


@pytest.fixture
def another(pool):
    """The same pool in a process that has marked nobody yet."""
    with TradePool.connect(pool.settings) as opened:
        yield opened


def held(pool: TradePool, user_id: str, symbol: str = "BTC/USDT") -> str:
    return pool.add_trade(
        buy(user_id=user_id, symbol=symbol, status="filled", amount="2", price="100")
    ).trade_id


def test_who_has_become_flat_is_marked_as_flat(pool):
    closing = held(pool, "ann")
    held(pool, "bob")
    pool.set_prices({"BTC/USDT": "110"})
    first = pool.mark_to_market(at="2026-01-01T00:00:00Z")
    assert pool.get_marks("ann")["by_currency"] != {}

    pool.close_trade(closing, "110")
    second = pool.mark_to_market(at="2026-01-01T00:00:01Z")

    assert pool.get_marks("ann") == {"at": second.at, "by_currency": {}}
    assert pool.get_marks("bob")["by_currency"]["USDT"]["unrealised"] == "20.00000000"
    third = pool.mark_to_market(at="2026-01-01T00:00:02Z")
    assert pool.get_marks("ann")["at"] == third.at > second.at > first.at


def test_who_has_become_flat_since_another_process_marked_him_is_marked_as_flat(pool, another):
    closing = held(pool, "ann")
    assert pool.get_marks("ann") == {}
    pool.mark_to_market({"BTC/USDT": "110"}, at="2026-01-01T00:00:00Z")
    assert another.get_marks("ann")["by_currency"]["USDT"]["count"] == 1

    pool.close_trade(closing, "110")
    marks = another.mark_to_market({"BTC/USDT": "110"}, at="2026-01-01T00:00:01Z")

    assert pool.get_marks("ann") == {"at": marks.at, "by_currency": {}}
    assert pool.get_marks("nobody") == {"at": marks.at, "by_currency": {}}


def test_open_trades_without_a_price_are_counted_and_never_valued(pool):
    for symbol in ("BTC/USDT", "ETH/USDT", "ETH/BTC"):
        held(pool, "ann", symbol)

    marks = pool.mark_to_market({"BTC/USDT": "110"}, at="2026-01-01T00:00:00Z")

    assert marks.missing == ("ETH/BTC", "ETH/USDT")
    by_currency = pool.get_marks("ann")["by_currency"]
    assert by_currency["USDT"] == {
        "unrealised": "20.00000000",
        "profit": "20.00000000",
        "exposure": "220.00000000",
        "winners": 1,
        "count": 1,
        "unmarked": 1,
    }
    assert (by_currency["BTC"]["count"], by_currency["BTC"]["unmarked"]) == (0, 1)


def test_totals_and_symbols_tell_what_the_last_mark_came_to(pool):
    assert pool.get_mark_totals() is None
    assert pool.get_symbol_marks() == {}
    for user_id in ("ann", "bob"):
        held(pool, user_id)
    held(pool, "eve", "ETH/USDT")

    marks = pool.mark_to_market({"BTC/USDT": "110"}, at="2026-01-01T00:00:00Z")

    assert pool.get_mark_totals() == {
        "at": marks.at,
        "backend": marks.backend,
        "totals": {"USDT": "40.00000000"},
        "users": 3,
        "rows": 2,
        "missing": ["ETH/USDT"],
        "stale": {},
    }
    bitcoin = {
        "unrealised": "40.00000000",
        "long_value": "440.00000000",
        "short_value": "0.00000000",
        "count": 2,
    }
    assert pool.get_symbol_marks() == {"at": marks.at, "by_symbol": {"BTC/USDT": {"USDT": bitcoin}}}


def test_each_tick_is_an_entry_of_the_stream(pool):
    held(pool, "ann")
    for price in ("110", "120"):
        marks = pool.mark_to_market({"BTC/USDT": price}, at="2026-01-01T00:00:00Z")
    first, second = (entry for _, entry in pool.redis.xrange(pool.store.keys.mark_stream))
    assert first[b"totals"] == b'{"USDT":"20.00000000"}'
    assert second == {
        b"part": b"0/1",
        b"at": str(marks.at).encode(),
        b"backend": marks.backend.encode(),
        b"totals": b'{"USDT":"40.00000000"}',
        b"users": b"1",
        b"rows": b"1",
        b"missing": b"0",
        b"stale": b"0",
    }


def test_a_price_from_before_never_replaces_a_later_one(pool):
    held(pool, "ann")
    assert pool.set_prices({"BTC/USDT": "110"}, at=NEW_YEAR_S) == 1
    assert pool.set_prices({"BTC/USDT": "1", "ETH/USDT": "2"}, at=NEW_YEAR_S - 1) == 1
    assert pool.mark_to_market(at=NEW_YEAR_S).totals == {"USDT": Decimal(20)}
    assert pool.set_prices({"BTC/USDT": "120"}) == 1
    assert pool.mark_to_market().totals == {"USDT": Decimal(40)}


def test_a_feed_whose_clock_runs_ahead_keeps_nobody_out(pool):
    held(pool, "ann")
    pool.set_prices({"BTC/USDT": "110"}, at="2999-01-01")
    assert pool.set_prices({"BTC/USDT": "120"}) == 1
    assert pool.mark_to_market().totals == {"USDT": Decimal(40)}


def test_a_stale_price_still_counts_and_is_named_with_its_age(pool):
    held(pool, "ann")
    held(pool, "ann", "ETH/USDT")
    held(pool, "ann", "XRP/USDT")
    pool.set_prices({"BTC/USDT": "110", "DOGE/USDT": "1"}, at=NEW_YEAR_S)
    pool.set_prices({"ETH/USDT": "110"}, at=NEW_YEAR_S + 1)

    fresh = pool.mark_to_market(at=NEW_YEAR_S + MAX_AGE_S)
    later = pool.mark_to_market(at=NEW_YEAR_S + MAX_AGE_S + 1)

    assert (fresh.stale, fresh.missing) == ({}, ("XRP/USDT",))
    assert (later.stale, later.missing) == ({"BTC/USDT": MAX_AGE_S + 1}, ("XRP/USDT",))
    assert later.totals == fresh.totals == {"USDT": Decimal(40)}
    assert pool.get_mark_totals()["stale"] == {"BTC/USDT": MAX_AGE_S + 1}
    newest = pool.redis.xrevrange(pool.store.keys.mark_stream, count=1)[0][1]
    assert (newest[b"stale"], newest[b"missing"]) == (b"1", b"1")
    assert pool.mark_to_market({"BTC/USDT": "110"}, at=NEW_YEAR_S + 10 * MAX_AGE_S).stale == {}


def test_no_price_is_stale_where_prices_may_have_any_age(pool):
    held(pool, "ann")
    pool.set_prices({"BTC/USDT": "110"}, at=0)
    patient: Settings = pool.settings.model_copy(update={"price_max_age_s": 0})
    with TradePool.connect(patient) as other:
        assert other.mark_to_market().stale == {}
    assert pool.mark_to_market().stale.keys() == {"BTC/USDT"}


def test_one_wrong_price_leaves_all_as_they_were(pool):
    pool.set_prices({"BTC/USDT": "110"})
    for prices, at, named in WRONG_PRICES:
        with pytest.raises(errors.InvalidTrade, match=named) as refusal:
            pool.set_prices(prices, at=at)
        assert len(str(refusal.value).splitlines()) == 1
    held(pool, "ann")
    assert pool.mark_to_market().totals == {"USDT": Decimal(20)}


@pytest.mark.parametrize("stored", ["60000", "000000000000000001 -1", "\u0661 5", b"\xff", b""])
def test_a_stored_price_that_is_none_counts_as_missing_and_is_told_once(pool, stored):
    held(pool, "ann")
    held(pool, "ann", "ETH/USDT")
    pool.set_prices({"ETH/USDT": "110"})
    pool.redis.hset(pool.store.keys.prices, mapping={"BTC/USDT": stored, b"\xfe": stored})
    with structlog.testing.capture_logs() as logs:
        ticks = [pool.mark_to_market(), pool.mark_to_market()]
    assert [tick.missing for tick in ticks] == [("BTC/USDT",)] * 2
    assert [tick.totals for tick in ticks] == [{"USDT": Decimal(20)}] * 2
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["stored prices are none"]
    pool.redis.hdel(pool.store.keys.prices, b"\xfe")
    pool.set_prices({"BTC/USDT": "110"})
    assert pool.mark_to_market().totals == {"USDT": Decimal(40)}


def test_damaged_totals_are_told_and_the_next_mark_replaces_them(pool):
    held(pool, "ann")
    pool.redis.hset(pool.store.keys.mark_totals, "0/1", b"{")
    with pytest.raises(errors.Corrupt, match="totals 0/1"):
        pool.get_mark_totals()
    pool.mark_to_market({"BTC/USDT": "110"})
    assert pool.get_mark_totals()["totals"] == {"USDT": "20.00000000"}


def test_older_marks_and_those_that_are_not_to_be_written_leave_what_others_read(pool, another):
    held(pool, "ann")
    pool.mark_to_market({"BTC/USDT": "110"}, at=NEW_YEAR_S + 1)
    standing, totals = pool.get_marks("ann"), pool.get_mark_totals()

    older = another.mark_to_market({"BTC/USDT": "1"}, at=NEW_YEAR_S)
    asked = another.mark_to_market({"BTC/USDT": "200"}, write=False, rows=True)

    assert (older.totals, asked.totals) == ({"USDT": Decimal(-198)}, {"USDT": Decimal(200)})
    assert len(asked.rows) == 1
    assert (pool.get_marks("ann"), pool.get_mark_totals()) == (standing, totals)
    again = another.mark_to_market({"BTC/USDT": "120"}, at=NEW_YEAR_S + 1)
    assert pool.get_marks("ann")["by_currency"]["USDT"]["unrealised"] == "40.00000000"
    assert pool.get_marks("ann")["at"] == again.at


def test_marks_of_a_time_to_come_count_as_now_and_keep_no_later_ones_out(pool):
    held(pool, "ann")
    ahead = pool.mark_to_market({"BTC/USDT": "110"}, at="2999-01-01")
    assert ahead.at <= now_us()
    assert pool.mark_to_market({"BTC/USDT": "120"}).at == pool.get_marks("ann")["at"]
    # Whoever's clock, or another version, wrote them.
    marking = pool._services.marking
    marking.mark(Tick(at=now_us() + 10**15, prices={"BTC/USDT": Decimal(1)}))
    assert pool.mark_to_market({"BTC/USDT": "130"}).at == pool.get_marks("ann")["at"]
