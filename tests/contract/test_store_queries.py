"""The store's indexes and lookups on a real server."""

from __future__ import annotations

import random

import pytest

from tests.store_changes import START_US, cancelled, change, ledger_change, new_trade
from tradepool.model.codec import LEDGER_KIND, TRADE_KIND, unpack_trade
from tradepool.model.ids import slot_of_user
from tradepool.settings import Settings
from tradepool.store import indexes, redis_store
from tradepool.store.indexes import Window
from tradepool.store.keys import Keys
from tradepool.store.lookups import ANSWER_TTL_S
from tradepool.store.redis_store import RedisStore


def add(store, *trades):
    for shard in range(store.keys.shard_count):
        mine = [trade for trade in trades if store.keys.shard_of_user(trade.user_id) == shard]
        for start in range(0, len(mine), 200):
            store.commit(shard, [change(None, trade) for trade in mine[start : start + 200]])


def ids(entries):
    return [entry.trade_id for entry in entries]


def in_order(trades, *, newest_first=True):
    return [
        t.trade_id for t in sorted(trades, key=lambda t: (t.created_at, t.trade_id), reverse=newest_first)
    ]


def walk(page_of, **window):
    """All pages one after the other, as a caller follows the cursor."""
    found, cursor = [], None
    while page := page_of(Window(cursor=cursor, **window)):
        assert len(page) <= window["limit"]
        found += page
        cursor = page[-1].cursor
    return ids(found)


@pytest.fixture
def crowd(store):
    """300 trades of 30 users over four shards, many of them at the same few times."""
    dice = random.Random(7)
    trades = [
        new_trade(
            f"user-{i % 30}", created_at=START_US + dice.choice((i, 0, 5)), symbol=dice.choice(("A/B", "C/D"))
        )
        for i in range(300)
    ]
    add(store, *trades)
    return trades


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_of_a_user_join_to_all_his_trades_in_order(store, crowd, limit, newest_first):
    mine = [trade for trade in crowd if trade.user_id == "user-3"]
    found = walk(lambda window: store.user_page("user-3", window), limit=limit, newest_first=newest_first)
    assert found == in_order(mine, newest_first=newest_first)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 9, 64, 1000])
def test_pages_of_a_symbol_merge_all_shards_in_order(store, crowd, limit, newest_first):
    mine = [trade for trade in crowd if trade.symbol == "A/B"]
    found = walk(lambda window: store.symbol_page("A/B", window), limit=limit, newest_first=newest_first)
    assert found == in_order(mine, newest_first=newest_first)


@pytest.mark.parametrize("newest_first", [True, False])
def test_more_trades_of_one_moment_than_a_chunk_holds_are_paged_like_any_other(
    store, monkeypatch, newest_first
):
    trades = [new_trade("ann", created_at=START_US) for _ in range(100)]
    trades += [new_trade("ann", created_at=START_US + step) for step in (-1, 1)]
    add(store, *trades)
    looks, look = [], indexes.ask_all
    monkeypatch.setattr(indexes, "ask_all", lambda *asked: looks.append(1) or look(*asked))
    found = walk(lambda window: store.user_page("ann", window), limit=3, newest_first=newest_first)
    assert found == in_order(trades, newest_first=newest_first)
    assert len(looks) <= 4 * 35


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_window_holds_its_beginning_and_not_its_end(store, newest_first):
    trades = [new_trade("ann", created_at=START_US + step) for step in range(10)]
    add(store, *trades)
    window = {"since": START_US + 2, "until": START_US + 5, "newest_first": newest_first}
    page = store.user_page("ann", Window(2, **window))
    rest = store.user_page("ann", Window(2, cursor=page[-1].cursor, **window))
    assert ids(page + rest) == in_order(trades[2:5], newest_first=newest_first)
    outside = store.user_page("ann", Window(9, cursor=(START_US + 9, "z"), **window))
    assert ids(outside) == (in_order(trades[2:5]) if newest_first else [])


def test_a_page_goes_on_where_it_was_although_trades_come_and_go(store, redis_client):
    trades = [new_trade("ann") for _ in range(6)]
    add(store, *trades)
    page = store.user_page("ann", Window(3))
    add(store, new_trade("ann"))
    redis_client.zrem(store.keys.user_index(store.keys.shard_of_user("ann"), "ann"), page[-1].trade_id)
    rest = store.user_page("ann", Window(3, cursor=page[-1].cursor))
    assert ids(page + rest) == in_order(trades)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(
    ("change_of", "place"), [("add", 0), ("add", 20), ("remove", 0), ("remove", 20), ("remove", 22)]
)
def test_a_page_goes_on_among_many_trades_of_one_moment_while_some_come_and_go(
    store, redis_client, monkeypatch, newest_first, change_of, place
):
    """What has been read already changes between two looks at one page; the first look ends at 24."""
    key = store.keys.user_index(store.keys.shard_of_user("ann"), "ann")
    members = sorted((f"trade-{number:03}" for number in range(90)), reverse=newest_first)
    redis_client.zadd(key, dict.fromkeys(members, START_US))
    looks, look = [], indexes.ask_all

    def look_and_change(client, commands):
        answers = look(client, commands)
        looks.append(len(answers[0]) // 2)
        if len(looks) == 1 and change_of == "add":
            redis_client.zadd(key, {f"{members[place]}{end}": START_US for end in "xyz"})
        elif len(looks) == 1:
            redis_client.zrem(key, *members[place : place + 3])
        return answers

    monkeypatch.setattr(indexes, "ask_all", look_and_change)
    page = store.user_page("ann", Window(20, newest_first=newest_first, cursor=(START_US, members[9])))
    assert looks[0] == 25
    assert ids(page) == members[10:30]


def test_all_ids_of_a_user_come_once_while_one_moment_keeps_growing(store, redis_client, monkeypatch):
    monkeypatch.setattr(indexes, "_PAGE", 10)
    key = store.keys.user_index(store.keys.shard_of_user("ann"), "ann")
    members = [f"trade-{number:03}" for number in range(100)]
    redis_client.zadd(key, dict.fromkeys(members, START_US))
    look = indexes.ask_all

    def look_and_add(client, commands):
        redis_client.zadd(key, {f"another-{redis_client.zcard(key)}": START_US})
        return look(client, commands)

    monkeypatch.setattr(indexes, "ask_all", look_and_add)
    found = list(store.user_trade_ids("ann"))
    assert len(found) == len(set(found))
    assert set(members) <= set(found)


def test_an_unknown_user_or_symbol_and_an_empty_page_have_nothing(store, crowd):
    assert store.user_page("nobody", Window(5)) == []
    assert store.symbol_page("X/Y", Window(5)) == []
    assert store.user_page("user-3", Window(0)) == []


def test_an_entry_says_where_its_record_is(store, crowd):
    entries = store.symbol_page("A/B", Window(20))
    values = store.read([(entry.shard, entry.trade_id) for entry in entries])
    assert None not in values


def test_all_trade_ids_of_a_user_come_oldest_first(store, crowd):
    mine = [trade for trade in crowd if trade.user_id == "user-3"]
    assert list(store.user_trade_ids("user-3")) == in_order(mine, newest_first=False)


def test_recent_trades_are_the_newest_of_all_and_bounded_per_shard(redis_client):
    store = RedisStore(redis_client, Keys(2), Settings(shard_count=2, recent_max=5))
    trades = [new_trade(f"user-{i}") for i in range(40)]
    add(store, *reversed(trades))
    for shard in range(2):
        assert redis_client.zcard(store.keys.recent(shard)) == 5
    assert ids(store.recent_ids(4)) == in_order(trades)[:4]
    assert len(store.recent_ids(1000)) == 10


def test_open_trades_are_found_by_user_and_by_shard_until_they_end(store):
    ann, annabel = [new_trade("ann") for _ in range(3)], [new_trade("ann\x21bel") for _ in range(2)]
    others = [new_trade(f"user-{i}") for i in range(1200)]
    add(store, *ann, *annabel, *others)
    store.commit(store.keys.shard_of_user("ann"), [change(ann[0], cancelled(ann[0]))])
    assert sorted(store.open_ids_of_user("ann")) == sorted(t.trade_id for t in ann[1:])
    assert list(store.open_ids_of_user("an")) == []
    everywhere = [trade_id for shard in range(4) for trade_id in store.open_ids(shard)]
    assert sorted(everywhere) == sorted(t.trade_id for t in [*ann[1:], *annabel, *others])


def test_open_trades_of_a_shard_are_whole_trades(store):
    trades = [new_trade("ann") for _ in range(3)]
    add(store, *trades)
    shard = store.keys.shard_of_user("ann")
    store.commit(shard, [change(trades[1], cancelled(trades[1]))])
    found = sorted(store.open_trades(shard), key=lambda trade: trade.created_at)
    assert found == [trades[0], trades[2]]


def test_a_scan_finds_every_record_of_its_kind(store):
    trades = [new_trade(f"user-{i}") for i in range(700)]
    add(store, *trades)
    store.commit(store.keys.shard_of_user("ann"), [ledger_change("ann", None, b"{}")])
    found = {record_id for shard in range(4) for record_id, _ in store.scan_records(shard, TRADE_KIND)}
    assert found == {trade.trade_id for trade in trades}
    ledgers = [record_id for shard in range(4) for record_id, _ in store.scan_records(shard, LEDGER_KIND)]
    assert ledgers == ["ann\x1fdefault"]
    assert len([1 for shard in range(4) for _ in store.scan_records(shard)]) == 701


def test_a_scan_of_many_pages_finds_all_that_is_there_throughout_while_the_hashes_grow(store, monkeypatch):
    monkeypatch.setattr(redis_store, "_SCAN_COUNT", 3)
    trades = [new_trade("ann") for _ in range(300)]
    add(store, *trades)
    shard, found = store.keys.shard_of_user("ann"), set()
    for number, (record_id, value) in enumerate(store.scan_records(shard)):
        found.add(record_id)
        assert unpack_trade(value).trade_id == record_id
        if number % 50 == 0 and number < 400:
            add(store, *(new_trade("ann") for _ in range(200)))
    assert found >= {trade.trade_id for trade in trades}


def test_users_are_all_who_have_a_record(store, crowd):
    store.commit(store.keys.shard_of_user("ann"), [ledger_change("ann", None, b"{}")])
    found = {user for shard in range(4) for user in store.users(shard)}
    assert found == {"ann", *(f"user-{i}" for i in range(30))}


def test_reading_keeps_the_order_asked_for(store, crowd):
    asked = [(store.keys.shard_of_user(t.user_id), t.trade_id) for t in random.Random(1).sample(crowd, 50)]
    asked.insert(7, (0, "nothing"))
    values = store.read(asked)
    assert values[7] is None
    assert [
        value and unpack_trade(value).trade_id == trade_id
        for value, (_, trade_id) in zip(values, asked, strict=True)
    ] == [None if i == 7 else True for i in range(51)]
    assert store.read([]) == []


def test_a_minted_id_needs_no_route_and_a_foreign_one_is_found_by_its_route(store):
    trade = new_trade("ann")
    assert store.shards_of_trades([trade.trade_id, "trade:7"]) == [store.keys.shard_of_user("ann"), None]
    for user_id in ("bob", "ann"):
        in_force = store.put_routes({"trade:7": slot_of_user(user_id)})
        assert in_force == {"trade:7": slot_of_user("bob")}, "the first one stands"
    assert store.shard_of_trade("trade:7") == store.keys.shard_of_user("bob")
    store.move_route("trade:7", slot_of_user("ann"))
    assert store.shard_of_trade("trade:7") == store.keys.shard_of_user("ann")
    assert store.put_routes({"trade:7": 1, "trade:8": 2}) == {"trade:7": slot_of_user("ann"), "trade:8": 2}
    assert store.put_routes({}) == {}


def test_answers_are_kept_for_minutes_and_the_first_one_stands(store, redis_client):
    store.put_answers({"aa": "stale", "bb": "rejected\x1f{}", "dd": "applied"})
    store.put_answers({"aa": "duplicate"})
    assert store.answers(["bb", "cc", "aa", "dd"]) == ["rejected\x1f{}", None, "stale", "applied"]
    for name in ("aa", "bb", "dd"):
        assert 0 < redis_client.ttl(store.keys.answer(name)) <= ANSWER_TTL_S
