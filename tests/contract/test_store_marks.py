"""Prices and marks in the store, on a real server."""

from __future__ import annotations

from itertools import permutations

from tradepool.clock import now_us
from tradepool.model.ids import slot_of_user
from tradepool.model.times import TIME_US_MAX
from tradepool.store import mark_values
from tradepool.store.keys import MARK_BUCKETS

DAY_US = 86_400_000_000
A_DAY_AGO = now_us() - DAY_US


def stored(at_us: int, price: str) -> bytes:
    return f"{at_us:018d} {price}".encode()


def test_prices_keep_their_text_and_replace_only_their_own(store):
    assert store.set_prices({"BTC/USDT": "60000.10", "ETH/USDT": "3000"}, 1) == 2
    assert store.set_prices({"ETH/USDT": "0.000000010"}, 2) == 1
    assert store.set_prices({}, 3) == 0
    assert store.prices() == {b"BTC/USDT": stored(1, "60000.10"), b"ETH/USDT": stored(2, "0.000000010")}


def test_the_latest_price_stays_whatever_order_they_come_in(store, redis_client):
    times = (0, 9, 10, A_DAY_AGO)
    for order in permutations(times):
        redis_client.delete(store.keys.prices)
        taken = sum(store.set_prices({"BTC/USDT": str(at)}, at) for at in order)
        assert store.prices() == {b"BTC/USDT": stored(A_DAY_AGO, str(A_DAY_AGO))}
        assert taken == sum(at == max(order[: place + 1]) for place, at in enumerate(order))


def test_a_time_to_come_counts_as_now_whoever_stored_it(store, redis_client):
    store.set_prices({"BTC/USDT": "1"}, TIME_US_MAX)
    assert abs(int(store.prices()[b"BTC/USDT"].split()[0]) - now_us()) < DAY_US
    redis_client.hset(store.keys.prices, "BTC/USDT", stored(TIME_US_MAX, "1"))
    assert store.set_prices({"BTC/USDT": "2"}, 7) == 1
    assert store.prices() == {b"BTC/USDT": stored(7, "2")}


def test_of_two_prices_of_one_time_the_last_stays(store):
    store.set_prices({"BTC/USDT": "1"}, 5)
    assert store.set_prices({"BTC/USDT": "2"}, 5) == 1
    assert store.prices() == {b"BTC/USDT": stored(5, "2")}


def test_each_symbol_has_its_own_time(store):
    store.set_prices({"BTC/USDT": "1"}, 9)
    assert store.set_prices({"BTC/USDT": "2", "ETH/USDT": "3"}, 8) == 1
    assert store.prices() == {b"BTC/USDT": stored(9, "1"), b"ETH/USDT": stored(8, "3")}


def test_what_is_no_price_of_ours_gives_way(store, redis_client):
    redis_client.hset(store.keys.prices, mapping={"A": "60000", "B": "9" * 17 + "x 1", "C": ""})
    assert store.set_prices({"A": "1", "B": "1", "C": "1"}, 1) == 3


def test_many_symbols_are_stored_in_pages(store, monkeypatch):
    monkeypatch.setattr(mark_values, "_PRICES_PAGE", 3)
    prices = {f"S{n}": str(n) for n in range(10)}
    assert store.set_prices(prices, 1) == 10
    assert store.prices() == {symbol.encode(): stored(1, price) for symbol, price in prices.items()}


def test_each_user_is_read_from_the_bucket_he_is_in(store):
    assert store.read_marks("ann") is None
    values = {
        shard: [b"%d %d" % (shard, bucket) for bucket in range(MARK_BUCKETS)] for shard in store.keys.shards
    }
    store.write_marks(values)
    for user_id in (f"user-{n}" for n in range(50)):
        slot = slot_of_user(user_id)
        assert store.read_marks(user_id) == b"%d %d" % (store.keys.shard(slot), store.keys.mark_bucket(slot))
    store.write_marks({shard: [b"new"] * MARK_BUCKETS for shard in (0, 2)})
    new = {shard for shard in store.keys.shards if store._client.get(store.keys.marks(shard, 7)) == b"new"}
    assert new == {0, 2}
    store.write_marks({})


def test_totals_stand_by_part_and_the_stream_of_ticks_is_capped(store, redis_client):
    assert store.read_mark_totals() == {}
    for tick in range(500):
        store.write_mark_totals(f"{tick % 2}/2", b"%d" % tick, {"at": str(tick)}, entries_max=100)
    assert store.read_mark_totals() == {"0/2": b"498", "1/2": b"499"}
    entries = redis_client.xrange(store.keys.mark_stream)
    assert 100 <= len(entries) < 300
    assert entries[-1][1] == {b"at": b"499"}
