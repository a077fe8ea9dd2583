"""Audits against planted faults, and against a pool that does not stand still."""

from __future__ import annotations

import threading

import pytest

from tests.audit_plants import opened
from tests.loose_trades import buy, entry
from tradepool.model import codec


@pytest.fixture
def pool(server, tmp_path):
    with opened(server, tmp_path / "pool") as (connected, _):
        yield connected


@pytest.fixture
def trade_id(pool):
    """A closed trade beside an open one and a balance, a part of it reserved."""
    pool.add_trade(buy(status="filled"))
    pool.update_available_tokens("ann", {"USDT": 5})
    pool.reserve_tokens("ann", "USDT", 1, "order-1", HOUR_S)
    closed = pool.add_trade(buy()).trade_id
    pool.add_fill(closed, entry("f1"))
    pool.close_trade(closed, "110")
    return closed


HOUR_S = 3600


def shard_of(pool):
    return pool.store.keys.shard_of_user("ann")


def record_key(pool, trade_id):
    return pool.store.keys.records(shard_of(pool), pool.store.keys.bucket_of(trade_id))


def overwrite(pool, trade_id, **fields):
    """Change a stored trade behind the pool's back, digest and all."""
    body = codec.encode_trade(pool.get_trade(trade_id))
    trade = codec.decode_trade(body)
    changed = codec.pack_trade(
        type(trade)(**{n: getattr(trade, n) for n in trade.__struct_fields__} | fields)
    )
    pool.redis.hset(record_key(pool, trade_id), trade_id, changed)


def rules_of(report):
    return set(report.counts)


def test_a_clean_pool_has_no_findings(pool, trade_id):
    levels = [pool.check_all_trades(level=level) for level in ("digest", "standard", "deep")]
    for report in (*levels, pool.check_trades("ann"), pool.check_trades("ann", deep=False)):
        assert report.ok
        assert not report.undecided
    assert pool.check_all_trades(deep=True).checked == {"shards": 2, "records": 3}
    assert pool.get_last_audit()["ok"] is True


def test_a_trade_lost_from_redis_is_missing_and_not_held_against_indexes_and_counters(pool, trade_id):
    pool.redis.hdel(record_key(pool, trade_id), trade_id)

    for report in (pool.check_all_trades(deep=True), pool.check_trades("ann")):
        assert [(f.rule, f.subject) for f in report.findings] == [("missing_in_redis", trade_id)]
        assert report.undecided == ("the counters of user ann, who has a bad record",)
    # Without the journal only what stands beside the trade tells that there was one.
    beside = {"index_extra", "claim_extra", "summary_fold", "key_value"}
    assert rules_of(pool.check_trades("ann", deep=False)) == beside


def test_a_trade_that_the_journal_never_saw_is_missing_there(pool, trade_id):
    made = codec.decode_trade(
        codec.encode_trade(pool.get_trade(trade_id)).replace(trade_id.encode(), b"ghost")
    )
    key = pool.store.keys.records(shard_of(pool), pool.store.keys.bucket_of("ghost"))
    pool.redis.hset(key, "ghost", codec.pack_trade(made))

    report = pool.check_all_trades(deep=True)

    # It is a copy, fill and all.
    assert rules_of(report) == {"missing_in_journal", "duplicate_fill"}


def test_a_flipped_byte_is_found(pool, trade_id):
    key = record_key(pool, trade_id)
    value = bytearray(pool.redis.hget(key, trade_id))
    value[codec.HEADER_CHARS + 30] ^= 1
    pool.redis.hset(key, trade_id, bytes(value))

    assert rules_of(pool.check_all_trades(deep=True)) == {"corrupt_record"}
    assert rules_of(pool.check_trades("ann")) == {"corrupt_record"}


def test_a_kind_of_a_newer_release_is_not_taken_for_another(pool, trade_id):
    body = codec.encode_trade(pool.get_trade(trade_id))
    pool.redis.hset(record_key(pool, trade_id), trade_id, codec.pack(9, body, "z", codec.NO_STATUS))

    found = [f for f in pool.check_all_trades(deep=True).findings if f.rule == "corrupt_record"]

    assert [(f.subject, "only a newer release" in f.detail) for f in found] == [(trade_id, True)]


def test_forged_figures_do_not_follow_from_the_fills(pool, trade_id):
    overwrite(pool, trade_id, pnl_net=pool.get_trade(trade_id).pnl_net + 1)

    report = pool.check_trades("ann")

    assert rules_of(report) == {"different_in_redis", "recomputed_figures", "cash_identity"}
    assert any("pnl_net: stored 11" in f.detail for f in report.findings)


def test_a_reservation_that_nobody_would_give_back_is_found(pool, trade_id):
    pool.redis.delete(pool.store.keys.expiries(shard_of(pool)))

    for report in (pool.check_all_trades(deep=True), pool.check_trades("ann", deep=False)):
        assert rules_of(report) == {"expiry_missing"}
        assert (report.findings[0].severity, report.findings[0].subject) == ("critical", "ann/default")


def test_an_expiry_of_a_ledger_that_has_none_is_found(pool, trade_id):
    pool.redis.zadd(pool.store.keys.expiries(shard_of(pool)), {"ann\x1fother": 7})

    for report in (pool.check_all_trades(deep=True), pool.check_trades("ann")):
        assert [finding.severity for finding in report.findings] == ["warning"]
        assert rules_of(report) == {"expiry_extra"}

    pool.redis.zadd(pool.store.keys.expiries(shard_of(pool)), {"nobody\x1fother": 7})

    assert len(pool.check_trades("ann").findings) == 1
    assert len(pool.check_all_trades(deep=True).findings) == 2


def test_each_index_names_exactly_what_belongs_in_it(pool, trade_id):
    keys, shard = pool.store.keys, shard_of(pool)
    pool.redis.zadd(keys.symbol_index(shard, "BTC/USDT"), {"ghost": 1})
    pool.redis.zadd(keys.recent(shard), {"ghost": 1})
    pool.redis.zadd(keys.open_trades(shard), {keys.open_member("ann", "ghost"): 0})
    pool.redis.zrem(keys.symbol_index(shard, "BTC/USDT"), trade_id)
    pool.redis.srem(keys.users(shard), "ann")

    found = {
        (f.rule, f.subject, f.detail.partition(",")[0]) for f in pool.check_all_trades(deep=True).findings
    }

    assert found == {
        ("index_extra", "ghost", "in the index of BTC/USDT"),
        ("index_extra", "ghost", "in the recent trades"),
        ("index_extra", "ghost", "in the set of open trades"),
        ("index_missing", trade_id, "not in the index of BTC/USDT"),
        ("index_missing", "ann", "not in the shard's users"),
    }


def test_a_counter_that_drifted_is_found(pool, trade_id):
    pool.redis.hincrby(pool.store.keys.counters(shard_of(pool), "ann"), "real|USDT|pnl", 1)

    report = pool.check_trades("ann")

    assert rules_of(report) == {"summary_fold"}
    assert "real|USDT|pnl" in report.findings[0].detail


def test_a_digest_that_drifted_is_found_without_reading_records(pool, trade_id):
    digest = pool.store.keys.digest(shard_of(pool))
    bucket = f"{pool.store.keys.bucket_of(trade_id):x}"
    pool.redis.hset(digest, bucket, "0" * 16 + ":7")

    report = pool.check_all_trades()

    assert rules_of(report) == {"digest"}
    assert report.level == "digest"


def test_changes_during_an_audit_are_no_findings(pool):
    stop = threading.Event()

    def trade(user_id):
        before = None
        while not stop.is_set():
            trade = buy(user_id=user_id, idempotency_key=before, related_trade_id=before)
            before = trade_id = pool.add_trade(trade).trade_id
            pool.add_fill(trade_id, entry(f"{trade_id}/1", order_id=trade_id))
            pool.close_trade(trade_id, "101")
            pool.update_available_tokens(user_id, {"USDT": 1})
            reservation = pool.reserve_tokens(user_id, "USDT", 1, trade_id, HOUR_S)
            pool.release_tokens(reservation.reservation_id)

    bots = [threading.Thread(target=trade, args=(name,)) for name in ("ann", "bob", "cy")]
    for bot in bots:
        bot.start()
    try:
        reports = [pool.check_all_trades(level=level) for level in ("deep", "standard", "digest") * 6]
        reports += [pool.check_trades("ann") for _ in range(8)]
    finally:
        stop.set()
        for bot in bots:
            bot.join()
    assert [report.findings for report in reports if not report.ok] == []
