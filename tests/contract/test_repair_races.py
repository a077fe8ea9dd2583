"""What changes between a repair's look and its write: whoever was first is not written over."""

from __future__ import annotations

import msgspec
import pytest

from tests.audit_plants import PLANTS
from tests.repairing import audit, keys_of, slow
from tradepool.audit.repair.fixes import CHANGED
from tradepool.errors import Fenced
from tradepool.model import codec


def looked_at(scene, name):
    """The fault is planted and looked at; what would be written about it, not yet written."""
    PLANTS[name](scene)
    repairs = scene.pool._services.repairs
    return list(repairs._fixes(repairs._pool_now(), audit(scene).findings, None))


def somebody_puts_the_record_back(scene):
    other = msgspec.structs.replace(scene.pool.get_trade(scene.open_id), trade_id=scene.closed_id)
    scene.put(scene.closed_id, codec.pack_trade(other))


def somebody_updates_the_trade(scene):
    scene.pool.update_trade(scene.closed_id, strategy="other")


def another_trade_takes_the_claim(scene):
    scene.redis.hset(scene.keys.idempotency(scene.shard, "ann"), "k9", scene.open_id)


def somebody_rebuilds_the_key(scene):
    name = scene.keys.counters(scene.shard, "ann")
    scene.redis.delete(name)
    scene.redis.hset(name, "real|USDT|pnl", 7)


def somebody_routes_it_elsewhere(scene):
    scene.pool.store.move_route("7", 12345)


def the_journal_publishes(scene):
    scene.redis.hset(scene.keys.journal, scene.keys.journal_field(scene.shard), "7-7 " + "0" * 16 + " 9")


RACES = {
    "missing_in_redis": somebody_puts_the_record_back,
    "corrupt_record": somebody_puts_the_record_back,
    "index_missing": somebody_updates_the_trade,
    "index_order": somebody_updates_the_trade,
    "open_set": somebody_updates_the_trade,
    "claim_extra": another_trade_takes_the_claim,
    "route": somebody_routes_it_elsewhere,
    "key_type": somebody_rebuilds_the_key,
}


@pytest.mark.parametrize(
    "name",
    [
        "missing_in_redis",
        "index_missing",
        *slow(sorted(RACES.keys() - {"missing_in_redis", "index_missing"})),
    ],
)
def test_what_has_changed_since_it_was_looked_at_is_left_as_it_is(scene, name):
    fixes = looked_at(scene, name)
    RACES[name](scene)
    before = keys_of(scene.redis)

    assert [fix.act() for fix in fixes[:1]] == [CHANGED]

    assert keys_of(scene.redis) == before


def test_counters_are_counted_again_when_their_user_goes_on_trading(scene):
    (fix,) = looked_at(scene, "summary_fold")
    scene.filled()
    scene.closed()

    assert fix.act() is None

    assert audit(scene).findings == ()


def test_sums_are_those_of_the_moment_in_which_they_are_written(scene):
    (fix,) = looked_at(scene, "digest")
    scene.pool.close_trade(scene.open_id, "101")
    scene.filled()

    assert fix.act() is None

    assert audit(scene).findings == ()


def test_a_record_that_went_on_from_what_was_put_back_is_repaired(scene, monkeypatch):
    (fix,) = looked_at(scene, "missing_in_redis")
    store = scene.pool.store
    commit = store.commit
    monkeypatch.setattr(
        store, "commit", lambda *change: (somebody_updates_the_trade(scene), commit(*change))[1]
    )

    assert fix.act() is None

    assert scene.pool.get_trade(scene.closed_id).strategy == "other"
    assert audit(scene).findings == ()


@pytest.mark.parametrize("name", ["missing_in_redis", *slow(["index_missing", "digest"])])
def test_a_server_that_waits_for_its_recovery_is_not_mended(scene, name):
    fixes = looked_at(scene, name)
    generation = scene.pool.store.generation()
    scene.patch.setattr(scene.pool.store, "generation", lambda: generation)
    # It would recover the server.
    scene.journal.close()
    scene.redis.script_flush()
    before = keys_of(scene.redis)

    with pytest.raises(Fenced):
        fixes[0].act()

    assert keys_of(scene.redis) == before
