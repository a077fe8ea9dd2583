"""What stands where nobody who asks for it looks, or belongs to nobody: a deep audit looks there."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from tests.audit_plants import Scene, opened
from tests.loose_trades import buy
from tests.store_changes import change
from tradepool.audit.recent_trades import never_pushed_out
from tradepool.audit.repair import indexes
from tradepool.audit.repair.fixes import mended
from tradepool.audit.shard_records import ShardRecords
from tradepool.errors import TradePoolError
from tradepool.model.archived import Archived
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


LISTS = {
    "a time limit of what the pool says of itself": (
        "key_ttl",
        "tp:{pool}:meta",
        lambda s: s.redis.expire(s.keys.meta, 3600),
    ),
    "a time limit of what the journal has": (
        "key_ttl",
        "tp:{pool}:journal",
        lambda s: s.redis.expire(s.keys.journal, 3600),
    ),
    "a user without a record": (
        "index_extra",
        "ghost",
        lambda s: s.redis.sadd(s.keys.users(s.shard), "ghost"),
    ),
    "a list of those in quarantine that is gone": (
        "quarantine_list",
        "open",
        lambda s: (s.pool.quarantine(s.open_id, "why"), s.redis.delete(s.keys.quarantined(s.shard))),
    ),
    "a trade among those in quarantine that is not": (
        "quarantine_list",
        "open",
        lambda s: s.redis.zadd(s.keys.quarantined(s.shard), {s.open_id: 7}),
    ),
    "nobody among those in quarantine": (
        "quarantine_list",
        "ghost",
        lambda s: s.redis.zadd(s.keys.quarantined(s.shard), {"ghost": 7}),
    ),
    "a recent trade that is gone": (
        "recent_missing",
        "open",
        lambda s: s.redis.zrem(s.keys.recent(s.shard), s.open_id),
    ),
}


@pytest.mark.parametrize("what", LISTS)
def test_what_lists_and_the_pools_own_keys_lack_or_have_too_many_is_found_and_repaired(scene, what):
    rule, subject, plant = LISTS[what]
    plant(scene)

    assert found(scene) == {(rule, scene.open_id if subject == "open" else subject)}
    repaired = scene.pool.check_all_trades(deep=True, repair=True)
    assert [step.state for step in repaired.repairs] == ["done"], repaired.repairs
    assert found(scene) == set()


def test_a_user_who_gets_a_record_while_a_repair_takes_him_for_a_ghost_stays(scene, monkeypatch):
    ghost, users = nobody(scene), scene.keys.users(scene.shard)
    scene.redis.sadd(users, ghost)

    def meanwhile(*step):
        scene.pool.add_trade(buy(user_id=ghost))
        return mended(*step)()

    monkeypatch.setattr(indexes, "mended", lambda *step: partial(meanwhile, *step))
    repaired = scene.pool.check_all_trades(deep=True, repair=True)

    assert [(step.subject, step.state) for step in repaired.repairs] == [(ghost, "refused")]
    assert found(scene) == set()
    assert scene.redis.sismember(users, ghost)


def test_recent_trades_that_newer_ones_have_pushed_out_are_not_missed(scene):
    scene.pool.store.recent_max = 2
    recent = scene.keys.recent(scene.shard)
    newest = [scene.filled(), scene.filled()]
    scene.redis.zremrangebyrank(recent, 0, -3)
    assert found(scene) == set()
    scene.redis.zrem(recent, newest[0])
    assert found(scene) == {("recent_missing", newest[0])}


def test_an_older_trade_that_came_later_does_not_accuse_those_that_were_pushed_out():
    records = ShardRecords(now_us=2)
    records.created = {"old": 1.0, "pushed out": 2.0}
    records.archived = {
        str(n): Archived(trade_id=str(n), user_id="ann", version=1, day="2026-01-02", payload="")
        for n in range(3)
    }
    assert never_pushed_out({"old": 1.0}, records, 3) == set()
    assert never_pushed_out({"old": 1.0}, records, 5) == {"pushed out"}
    records.created["pushed out"] = 1.8e15
    assert never_pushed_out({"old": 1.0}, records, 3) == {"pushed out"}


def test_an_entry_that_the_journal_cannot_read_is_told_at_once(scene):
    scene.journal.close()
    outbox = scene.keys.outbox(scene.shard)
    scene.redis.xadd(outbox, {"x": "junk"})
    for level in ("digest", "deep"):
        report = scene.pool.check_all_trades(level=level)
        assert set(report.counts) == {"outbox_unreadable"}


def test_junk_behind_a_good_commit_is_told_once_the_journal_has_not_come_on(scene, monkeypatch):
    scene.journal.close()
    before = scene.pool.get_trade(scene.open_id)
    after = msgspec.structs.replace(before, version=before.version + 1)
    scene.pool.store.commit(scene.shard, [change(before, after)])
    position = scene.redis.xadd(scene.keys.outbox(scene.shard), {"x": "junk"})
    scene.redis.hset(scene.keys.digest(scene.shard), "position", position)
    monkeypatch.setattr("tradepool.audit.digest_audit.JOURNAL_WAIT_S", 0.01)

    report = scene.pool.check_all_trades()

    assert set(report.counts) == {"outbox_unreadable"}


@pytest.mark.parametrize("name", ["tp:{pool}:meta", "tp:{pool}:journal"])
def test_a_pools_own_key_of_a_wrong_type_gives_no_clean_report(scene, name):
    scene.redis.delete(name)
    scene.redis.set(name, "no hash")
    told = ""
    try:
        is_ok = scene.pool.check_all_trades(deep=True).ok
    except TradePoolError as problem:
        is_ok, told = False, str(problem)
    assert not is_ok, told
