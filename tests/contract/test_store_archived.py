"""A trade that leaves the store for the archive, on a real server: what goes, what stays, what is refused."""

from __future__ import annotations

import msgspec
import pytest
import redis

from tests.loose_trades import buy
from tests.store_changes import archiving, cancelled, change, filled, new_trade
from tradepool.errors import IdempotencyConflict, IllegalTransition, VersionConflict
from tradepool.journaling.writer import new_lines
from tradepool.model.archived import archived
from tradepool.model.codec import ARCHIVED_KIND, digest_of, encode_trade, pack_archived, unpack_trade
from tradepool.model.commands import AddFill, AddTrade, UpdateTrade
from tradepool.model.counters import add_counters, contribution
from tradepool.model.kinds import Role
from tradepool.model.trade import Trade
from tradepool.store.indexes import Window
from tradepool.store.keys import Keys
from tradepool.store.outbox import OutboxEntry

USER = "ann"


@pytest.fixture
def shard(store):
    return store.keys.shard_of_user(USER)


def closed() -> Trade:
    """A trade that made 10, with an idempotency key and two venue fills."""
    entered = filled(new_trade(USER, idempotency_key="k1", exchange="binance"))
    return filled(entered, Role.EXIT, fill_id="v2", price=110)


def names_of(trade: Trade, client: redis.Redis, keys: Keys) -> list[str]:
    """Keys in which something still names the trade, besides its record and the lists of what was changed."""
    shard = keys.shard_of_user(USER)
    kept = {
        keys.records(shard, keys.bucket_of(trade.trade_id)),
        keys.outbox(shard),
        keys.changed(shard, USER),
    }
    found = (key.decode() for key in client.keys("*"))
    return [key for key in found if key not in kept and trade.trade_id in _contents(client, key)]


def _contents(client: redis.Redis, key: str) -> str:
    read = {b"zset": lambda: client.zrange(key, 0, -1), b"set": lambda: client.smembers(key)}
    return str(read.get(client.type(key), lambda: client.hgetall(key))())


def lifetime(*trades: Trade) -> dict[str, int]:
    total: dict[str, int] = {}
    for trade in trades:
        add_counters(total, contribution(trade))
    return {name: number for name, number in total.items() if number}


def test_an_archived_trade_leaves_its_record_and_nothing_else_that_names_it(store, shard, redis_client):
    trade = closed()
    store.commit(shard, [change(None, trade)])
    assert len(names_of(trade, redis_client, store.keys)) == 5
    position = store.commit(shard, [archiving(trade, task_id="t1")])
    assert names_of(trade, redis_client, store.keys) == []
    assert store.read([(shard, trade.trade_id)]) == [pack_archived(archived(trade, "2026-11-01"))]
    assert store.digest(shard).count == 1
    (_, fields) = redis_client.xrange(store.keys.outbox(shard))[-1]
    (line,) = new_lines(OutboxEntry(shard, position, fields))
    before = digest_of(encode_trade(trade)).encode()
    assert (line.kind.decode(), line.previous, line.version) == (ARCHIVED_KIND, before, trade.version + 1)


def test_counters_stay_and_the_archived_part_of_them_is_counted_beside(store, shard):
    trade, live = closed(), filled(new_trade(USER), fill_id="v3")
    store.commit(shard, [change(None, trade), change(None, live)])
    assert store.archived_counters(USER) == {}
    store.commit(shard, [archiving(trade)])
    assert store.counters(USER) == lifetime(trade, live)
    assert store.archived_counters(USER) == lifetime(trade)
    store.commit(shard, [change(live, gone := cancelled(live)), archiving(gone)])
    assert store.counters(USER) == store.archived_counters(USER) == lifetime(trade, gone)


def test_a_key_and_a_fill_of_an_archived_trade_are_free_for_another(store, shard):
    trade, other = closed(), closed()
    store.commit(shard, [change(None, trade)])
    with pytest.raises(VersionConflict):
        store.commit(shard, [change(None, other)])
    store.commit(shard, [archiving(trade), change(None, other)])
    claim = store.keys.fill_claim("binance", "default", "BTC/USDT", "v2")
    assert (store.idempotency_owner(USER, "k1"), store.claim_owner(USER, claim)) == (other.trade_id,) * 2
    assert [entry.trade_id for entry in store.user_page(USER, Window(10))] == [other.trade_id]


def test_a_trade_of_more_fills_than_one_call_can_name_is_archived_whole(store, shard, redis_client):
    one = filled(new_trade(USER)).fills[0]
    fills = tuple(msgspec.structs.replace(one, fill_id=f"v{number}") for number in range(9000))
    trade = new_trade(USER, fills=fills)
    store.commit(shard, [change(None, trade)])
    assert redis_client.hlen(store.keys.fill_claims(shard, USER)) == 9000
    store.commit(shard, [archiving(trade)])
    assert redis_client.hlen(store.keys.fill_claims(shard, USER)) == 0


def test_archiving_a_version_that_has_passed_writes_nothing(store, shard):
    trade = closed()
    store.commit(shard, [change(None, trade), change(trade, cancelled(trade))])
    with pytest.raises(VersionConflict):
        store.commit(shard, [archiving(trade)])
    assert store.archived_counters(USER) == {}
    assert unpack_trade(store.read([(shard, trade.trade_id)])[0]) == cancelled(trade)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_replaying_to_an_archived_trade_from_any_version_ends_alike(store, shard, redis_client, known):
    new = new_trade(USER, idempotency_key="k1", exchange="binance")
    entered = filled(new)
    ended = filled(entered, Role.EXIT, fill_id="v2", price=110)
    live = filled(new_trade(USER), fill_id="v3")
    store.restore(shard, [change(None, live)])
    versions = [None, new, entered]
    if versions[known] is not None:
        store.restore(shard, [change(None, versions[known])])
    before = change(versions[known], ended).before
    store.restore(
        shard, [archiving(ended, before=before, trade_before=versions[known], trade_archived=ended)]
    )
    assert store.counters(USER) == lifetime(ended, live)
    assert store.archived_counters(USER) == lifetime(ended)
    assert names_of(ended, redis_client, store.keys) == []
    assert list(store.open_ids(shard)) == [live.trade_id]


def test_a_trade_added_and_archived_in_one_commit_counts_in_both(store, shard, redis_client):
    trade = closed()
    store.commit(shard, [change(None, trade), archiving(trade)])
    assert store.counters(USER) == store.archived_counters(USER) == lifetime(trade)
    assert names_of(trade, redis_client, store.keys) == []


def test_what_a_snapshot_knows_of_archived_trades_is_restored_once(store, shard, redis_client):
    trade, live = closed(), filled(new_trade(USER), fill_id="v3")
    for _ in range(2):
        store.restore_archived_counters(USER, lifetime(trade))
    store.restore(shard, [archiving(trade, before=None, trade_before=None), change(None, live)])
    assert store.counters(USER) == lifetime(trade, live)
    assert store.archived_counters(USER) == lifetime(trade)
    assert list(store.users(shard)) == [USER]
    assert names_of(trade, redis_client, store.keys) == []


def test_an_add_of_an_archived_trade_is_a_duplicate_and_another_under_its_id_a_conflict(core, store, shard):
    command = AddTrade(command_id="c1", as_of=1_750_000_000_000_000, trade=buy())
    (added,) = core.apply([command])
    trade = unpack_trade(store.read([(store.keys.shard_of_user(buy()["user_id"]), added.trade_id)])[0])
    store.commit(store.keys.shard_of_user(trade.user_id), [archiving(trade)])
    again = AddTrade(command_id="c2", as_of=command.as_of, trade=buy() | {"trade_id": trade.trade_id})
    other = AddTrade(command_id="c3", as_of=command.as_of, trade=again.trade | {"amount": "9"})
    repeated, moved, refused = core.apply([command, again, other])
    assert (repeated.outcome, repeated.version, repeated.trade_id) == ("duplicate", 2, trade.trade_id)
    assert (moved.outcome, moved.trade_id) == ("duplicate", trade.trade_id)
    assert isinstance(refused, IdempotencyConflict)
    assert refused.field == "trade_id"


def test_an_archived_trade_does_not_change(core, store, shard):
    trade = closed()
    store.commit(shard, [change(None, trade)])
    store.commit(shard, [archiving(trade)])
    update = UpdateTrade(command_id="u", as_of=1, trade_id=trade.trade_id, changes={"strategy": "x"})
    fill = AddFill(command_id="f", as_of=1, trade_id=trade.trade_id, fill={"fill_id": "v9"})
    for refused in core.apply([update, fill]):
        assert isinstance(refused, IllegalTransition)
        assert (refused.field, refused.value) == ("trade_id", trade.trade_id)
        assert "add a new one" in refused.cure


def test_open_trades_pass_over_what_has_been_archived_since_they_were_listed(store, shard, redis_client):
    trade, live = closed(), filled(new_trade(USER), fill_id="v3")
    store.commit(shard, [change(None, trade), change(None, live)])
    store.commit(shard, [archiving(trade)])
    redis_client.zadd(store.keys.open_trades(shard), {store.keys.open_member(USER, trade.trade_id): 0})
    assert list(store.open_trades(shard)) == [live]


def test_the_key_of_an_archived_trade_starts_a_new_trade(core, store):
    def add(command_id: str) -> AddTrade:
        trade = buy() | {"idempotency_key": "k1"}
        return AddTrade(command_id=command_id, as_of=1_750_000_000_000_000, trade=trade)

    (first,) = core.apply([add("c1")])
    shard = store.keys.shard_of_user(buy()["user_id"])
    store.commit(shard, [archiving(unpack_trade(store.read([(shard, first.trade_id)])[0]))])
    (second,) = core.apply([add("c2")])
    assert (second.outcome, second.version) == ("applied", 1)
    assert second.trade_id != first.trade_id
