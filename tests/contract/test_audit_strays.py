"""What stands where nobody who asks for it looks, or belongs to nobody: a deep audit looks there."""

from __future__ import annotations

import msgspec
import pytest

from tests.audit_plants import Scene, opened
from tests.store_changes import change
from tradepool.server.embedded import EmbeddedServer
from tradepool.store.keys import BUCKETS


@pytest.fixture(scope="module")
def server(server_binary, tmp_path_factory):
    with EmbeddedServer(tmp_path_factory.mktemp("strays")) as started:
        yield started


@pytest.fixture
def scene(server, tmp_path):
    with opened(server, tmp_path / "pool") as (pool, journal):
        yield Scene(pool, journal, None)


def found(scene):
    """(rule, subject) of each finding of the whole pool's audit."""
    return {(each.rule, each.subject) for each in scene.pool.check_all_trades(deep=True).findings}


def nobody(scene, shard=None):
    """A user of the shard who has no record."""
    wanted = scene.shard if shard is None else shard
    names = (f"nobody-{number}" for number in range(100))
    return next(name for name in names if scene.keys.shard_of_user(name) == wanted)


NAMED = {
    "the index of a user": (
        "index_extra",
        lambda s: s.redis.zadd(s.keys.user_index(s.shard, nobody(s)), {"ghost": 7}),
    ),
    "the index of a symbol": (
        "index_extra",
        lambda s: s.redis.zadd(s.keys.symbol_index(s.shard, "NONE/USDT"), {"ghost": 7}),
    ),
    "the index of a symbol that has trades in another shard": (
        "index_extra",
        lambda s: s.redis.zadd(s.keys.symbol_index(1 - s.shard, "BTC/USDT"), {"ghost": 7}),
    ),
    "a key": ("claim_extra", lambda s: s.redis.hset(s.keys.idempotency(s.shard, nobody(s)), "k", "ghost")),
    "a fill": ("claim_extra", lambda s: s.redis.hset(s.keys.fill_claims(s.shard, nobody(s)), "f", "ghost")),
    "counters": (
        "summary_fold",
        lambda s: s.redis.hset(s.keys.counters(s.shard, nobody(s)), "real|USDT|pnl", 5),
    ),
    "counters of archived trades": (
        "summary_fold",
        lambda s: s.redis.hset(s.keys.archived_counters(s.shard, nobody(s)), "real|USDT|pnl", 5),
    ),
}


@pytest.mark.parametrize("what", NAMED)
def test_what_is_there_of_a_user_or_symbol_without_records_is_found(scene, what):
    rule, plant = NAMED[what]
    plant(scene)
    subject = nobody(scene) if rule == "summary_fold" else "ghost"
    assert found(scene) == {(rule, subject)}


@pytest.mark.parametrize("is_copy", [True, False])
def test_a_record_in_a_bucket_where_nobody_looks_for_it_is_found(scene, is_copy):
    trade_id, bucket = scene.closed_id, scene.keys.bucket_of(scene.closed_id)
    value = scene.value(trade_id)
    if not is_copy:
        scene.redis.hdel(scene.records(trade_id), trade_id)
    scene.redis.hset(scene.keys.records(scene.shard, (bucket + 1) % BUCKETS), trade_id, value)

    assert found(scene) == {("record_header", trade_id)}


@pytest.mark.parametrize("trade_id", [None, "7"], ids=["minted", "given"])
def test_one_id_in_two_shards_is_a_wrong_way_to_one_of_them_and_nothing_else(scene, trade_id):
    first = scene.closed_id if trade_id is None else scene.filled(trade_id=trade_id)
    elsewhere = 1 - scene.shard
    trade = scene.pool.get_trade(first)
    other = msgspec.structs.replace(trade, user_id=nobody(scene, elsewhere), version=1, idempotency_key=None)
    scene.pool.store.commit(elsewhere, [change(None, other)])
    scene.pool.write_snapshot(scene.journal.journal)

    assert found(scene) == {("route", first)}
