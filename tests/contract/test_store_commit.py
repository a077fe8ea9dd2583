"""One commit of one shard on a real server: everything or nothing."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
import redis

from tests.store_changes import cancelled, change, filled, ledger_change, new_trade
from tradepool.errors import Corrupt, Fenced, Misconfigured, StoreUnavailable, VersionConflict
from tradepool.journaling.writer import new_lines
from tradepool.model.codec import TRADE_KIND, digest_of, encode_trade, pack_trade, unpack_trade
from tradepool.model.counters import add_counters, contribution
from tradepool.model.kinds import Role
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.settings import Settings
from tradepool.store.connection import connect
from tradepool.store.fence import COMMIT_SCRIPT, is_open, open_fence
from tradepool.store.outbox import OutboxEntry
from tradepool.store.redis_store import RedisStore


@pytest.fixture
def shard(store):
    return store.keys.shard_of_user("ann")


def everything(client: redis.Redis) -> dict[bytes, object]:
    """The server's whole contents, to see that nothing changed."""
    return {key: client.dump(key) for key in client.keys("*")}


def outbox_lines(client: redis.Redis, store: RedisStore, shard: int):
    entries = client.xrange(store.keys.outbox(shard))
    return [
        line
        for position, items in entries
        for line in new_lines(OutboxEntry(shard, position.decode(), items))
    ]


def test_an_added_trade_can_be_read_and_stands_in_the_outbox(store, shard, redis_client):
    trade = new_trade("ann")
    position = store.commit(shard, [change(None, trade, command_id="c1", task_id="t1")])
    assert store.read([(shard, trade.trade_id), (shard, "nobody")]) == [pack_trade(trade), None]
    assert store.last_position(shard) == position
    (line,) = outbox_lines(redis_client, store, shard)
    assert (line.position, line.record_id, line.command_id, line.task_id) == (
        position.encode(),
        trade.trade_id.encode(),
        b"c1",
        b"t1",
    )
    assert line.record == encode_trade(trade)


def test_positions_grow_from_commit_to_commit(store, shard):
    assert store.last_position(shard) == START_POSITION
    positions = [store.commit(shard, [change(None, new_trade("ann"))]) for _ in range(3)]
    assert sorted(positions, key=parse_position) == positions
    assert store.last_positions()[shard] == positions[-1]
    assert set(store.last_positions()) == {START_POSITION, positions[-1]}


def test_a_lost_race_writes_nothing_at_all(store, shard, redis_client):
    trade, other = new_trade("ann"), new_trade("ann")
    store.commit(shard, [change(None, trade), change(None, other)])
    store.commit(shard, [change(trade, cancelled(trade))])
    before = everything(redis_client)
    with pytest.raises(VersionConflict, match=trade.trade_id) as conflict:
        store.commit(
            shard,
            [
                change(other, filled(other, fill_id="o")),
                change(trade, filled(trade)),
                change(None, new_trade("ann")),
            ],
        )
    assert other.trade_id not in str(conflict.value)
    assert everything(redis_client) == before


def test_a_change_of_a_trade_that_is_gone_loses_too(store, shard, redis_client):
    trade = new_trade("ann")
    with pytest.raises(VersionConflict):
        store.commit(shard, [change(trade, cancelled(trade))])
    assert redis_client.exists(store.keys.digest(shard)) == 0


def test_an_add_sent_twice_is_written_once(store, shard, redis_client):
    step = change(None, new_trade("ann"))
    store.commit(shard, [step])
    before = everything(redis_client)
    with pytest.raises(VersionConflict):
        store.commit(shard, [step])
    assert everything(redis_client) == before


def test_a_taken_idempotency_key_or_fill_stops_the_batch_and_has_an_owner(store, shard, redis_client):
    first = filled(new_trade("ann", idempotency_key="k1"))
    store.commit(shard, [change(None, first)])
    before = everything(redis_client)
    with pytest.raises(VersionConflict, match="idempotency key 'k1'"):
        store.commit(shard, [change(None, new_trade("ann", idempotency_key="k1"))])
    with pytest.raises(VersionConflict, match="fill"):
        store.commit(shard, [change(None, filled(new_trade("ann")))])
    assert everything(redis_client) == before
    assert store.idempotency_owner("ann", "k1") == first.trade_id
    assert (
        store.claim_owner("ann", store.keys.fill_claim("unknown", "default", "BTC/USDT", "v1"))
        == first.trade_id
    )
    assert store.idempotency_owner("ann", "k2") is None
    assert store.claim_owner("ann", "other") is None


def test_digests_tell_what_the_shard_holds_and_up_to_where(store, shard):
    trades = [new_trade("ann") for _ in range(40)]
    store.commit(shard, [change(None, trade) for trade in trades])
    position = store.commit(shard, [change(trade, cancelled(trade)) for trade in trades[:20]])
    held = [*map(cancelled, trades[:20]), *trades[20:]]
    digest = store.digest(shard)
    total = 0
    for trade in held:
        total ^= int(digest_of(encode_trade(trade)), 16)
    assert (digest.position, digest.count, digest.digest) == (position, 40, f"{total:016x}")
    assert digest.buckets.keys() == {store.keys.bucket_of(trade.trade_id) for trade in trades}


def test_what_the_journal_has_published_is_compared_with_what_waits(store, shard, redis_client):
    store.commit(shard, [change(None, new_trade("ann"))])
    redis_client.hset(store.keys.journal, f"{shard:02x}", "5-1 00000000000000ff 12")
    journaled = store.journaled([shard])[0]
    assert (journaled.position, journaled.digest, journaled.count) == ("5-1", "00000000000000ff", 12)
    others = [known for known in store.journaled_shards() if known != journaled]
    assert [(known.position, known.count) for known in others] == [(START_POSITION, 0)] * 3
    assert [store.outbox_lengths()[shard], sum(store.outbox_lengths())] == [1, 1]


def test_an_empty_shard_has_an_empty_digest(store):
    digest = store.digest(0)
    assert (digest.position, digest.count, digest.digest) == (START_POSITION, 0, "0" * 16)


def test_counters_are_the_sum_of_contributions_at_any_size(store, shard):
    huge = new_trade("ann", amount=Decimal(10) ** 20, price=Decimal(10) ** 20)
    small = new_trade("ann")
    closed = filled(filled(small), Role.EXIT, fill_id="v2", price=90)
    held = [filled(huge, fill_id="h1"), closed, new_trade("ann", symbol="ETH/BTC")]
    store.commit(shard, [change(None, trade) for trade in (huge, small, held[2])])
    store.commit(shard, [change(huge, held[0]), change(small, filled(small))])
    store.commit(shard, [change(filled(small), closed)])
    expected: dict[str, int] = {}
    for trade in held:
        add_counters(expected, contribution(trade))
    assert store.counters("ann") == {name: n for name, n in expected.items() if n}
    assert store.counters("bob") == {}


def test_a_restarted_server_is_fenced_until_recovery_opens_it(store, shard, redis_client):
    redis_client.script_flush()
    assert not is_open(redis_client)
    with pytest.raises(Fenced):
        store.commit(shard, [change(None, new_trade("ann"))])
    open_fence(redis_client)
    store.commit(shard, [change(None, new_trade("ann"))])


def test_restoring_writes_the_same_projection_without_outbox_and_leaves_the_fence_closed(
    store, shard, redis_client
):
    trade = filled(new_trade("ann", idempotency_key="k1"))
    steps = [change(None, trade), ledger_change("ann", None, b"{}")]
    store.commit(shard, steps)
    written = everything(redis_client).keys()
    digest = store.digest(shard)
    redis_client.flushall()
    redis_client.script_flush()
    store.restore(shard, steps)
    store.advance_outbox(shard, digest.position)
    assert not is_open(redis_client)
    assert store.digest(shard) == digest
    restored = everything(redis_client).keys()
    assert restored <= written
    assert written - restored == {store.keys.meta.encode(), store.keys.changed(shard, "ann").encode()}
    assert redis_client.xlen(store.keys.outbox(shard)) == 0


def test_restoring_on_other_contents_than_expected_is_refused(store, shard):
    trade = new_trade("ann")
    store.commit(shard, [change(None, trade)])
    with pytest.raises(VersionConflict):
        store.restore(shard, [change(None, trade)])


def test_commits_after_an_advanced_outbox_stand_behind_its_position(store, shard, redis_client):
    far = "99999999999999-5"
    store.advance_outbox(shard, far)
    store.advance_outbox(shard, "99999999999999-4")
    store.advance_outbox(shard, START_POSITION)
    assert store.last_position(shard) == far
    assert redis_client.xlen(store.keys.outbox(shard)) == 0
    assert store.commit(shard, [change(None, new_trade("ann"))]) == "99999999999999-6"
    assert redis_client.xlen(store.keys.outbox(shard)) == 1


def test_a_batch_of_many_users_and_a_trade_of_many_fills_commit(store):
    trades = [new_trade(f"user-{i}") for i in range(200)]
    for shard in range(4):
        mine = [t for t in trades if store.keys.shard_of_user(t.user_id) == shard]
        store.commit(shard, [change(None, trade) for trade in mine])
    assert sum(store.digest(shard).count for shard in range(4)) == 200
    one = filled(new_trade("ann")).fills[0]
    fills = tuple(msgspec.structs.replace(one, fill_id=f"v{i}") for i in range(9000))
    many = new_trade("ann", fills=fills)
    shard = store.keys.shard_of_user("ann")
    store.commit(shard, [change(None, many)])
    assert unpack_trade(store.read([(shard, many.trade_id)])[0]) == many


def test_names_in_any_script_are_stored_as_they_are(store):
    user = "ünï — {x}:*\n日本"
    shard = store.keys.shard_of_user(user)
    trade = new_trade(user, symbol="Ωß/USDT", idempotency_key="ключ")
    store.commit(shard, [change(None, trade, command_id="команда")])
    assert unpack_trade(store.read([(shard, trade.trade_id)])[0]) == trade
    assert store.idempotency_owner(user, "ключ") == trade.trade_id
    assert list(store.open_ids_of_user(user)) == [trade.trade_id]
    assert list(store.scan_records(shard, TRADE_KIND)) == [(trade.trade_id, pack_trade(trade))]


def test_a_full_server_refuses_commits_whole_and_still_reads(store, shard, redis_client):
    trade = new_trade("ann")
    store.commit(shard, [change(None, trade)])
    before = everything(redis_client)
    redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="out of memory"):
            store.commit(shard, [change(trade, cancelled(trade)), change(None, new_trade("ann"))])
        assert store.read([(shard, trade.trade_id)]) == [pack_trade(trade)]
    finally:
        redis_client.config_set("maxmemory", "0")
    assert everything(redis_client) == before


def test_a_server_that_does_not_write_now_is_unavailable(store, shard, redis_client):
    redis_client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(StoreUnavailable, match="does not write"):
            store.commit(shard, [change(None, new_trade("ann"))])
        with pytest.raises(StoreUnavailable, match="does not write"):
            store.put_answers({"aa": "stale"})
    finally:
        redis_client.config_set("min-replicas-to-write", "0")
    assert redis_client.exists(store.keys.digest(shard)) == 0


def test_a_key_of_another_type_is_corrupt_not_a_mystery(store, shard, redis_client):
    redis_client.set(store.keys.counters(shard, "ann"), "no hash")
    with pytest.raises(Corrupt):
        store.counters("ann")
    with pytest.raises(Corrupt):
        store.commit(shard, [change(None, new_trade("ann"))])
    redis_client.set(store.keys.digest(shard), "no hash")
    with pytest.raises(Corrupt):
        store.last_position(shard)


def test_an_unreachable_server_is_unavailable_and_a_wrong_url_is_misconfigured(store, tmp_path):
    with connect(Settings(redis_url=f"unix://{tmp_path}/nobody.sock")) as away:
        lost = RedisStore(away, store.keys, Settings())
        with pytest.raises(StoreUnavailable):
            lost.last_positions()
        with pytest.raises(StoreUnavailable):
            is_open(away)
    with pytest.raises(Misconfigured, match="TRADEPOOL_REDIS_URL"):
        connect(Settings(redis_url="http://127.0.0.1"))


def test_the_script_says_what_it_takes_before_it_begins():
    header = COMMIT_SCRIPT.split("local", 1)[0]
    assert all(word in header for word in ("KEYS", "ARGV", "RETURNS", "Atomic"))


def test_an_advance_that_broke_off_is_finished_by_the_next(store, redis_client):
    shard = store.keys.shard_of_user("ann")
    redis_client.xadd(
        store.keys.outbox(shard), {"advance": ""}, id="99999999999999-5", maxlen=0, approximate=False
    )

    store.advance_outbox(shard, "99999999999999-5")

    assert store.last_position(shard) == "99999999999999-5"
