"""Audits against planted faults, and against a pool that does not stand still."""

from __future__ import annotations

import threading

import pytest

from tests.loose_trades import buy, entry
from tradepool import TradePool, errors
from tradepool.model import codec
from tradepool.model.packing import packed


@pytest.fixture
def pool(tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as opened:
        yield opened


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
    for report in (pool.check_all_trades(), pool.check_all_trades(deep=True), pool.check_trades("ann")):
        assert report.ok
        assert not report.undecided
    assert pool.check_all_trades(deep=True).checked == {"shards": 2, "records": 3}
    assert pool.get_last_audit()["ok"] is True


def test_a_trade_lost_from_redis_is_missing(pool, trade_id):
    pool.redis.hdel(record_key(pool, trade_id), trade_id)

    for report in (pool.check_all_trades(deep=True), pool.check_trades("ann")):
        assert {"missing_in_redis", "index_extra", "summary_fold"} == rules_of(report)
        assert any(f.subject == trade_id for f in report.findings if f.rule == "missing_in_redis")


def test_a_trade_that_the_journal_never_saw_is_missing_there(pool, trade_id):
    made = codec.decode_trade(
        codec.encode_trade(pool.get_trade(trade_id)).replace(trade_id.encode(), b"ghost")
    )
    key = pool.store.keys.records(shard_of(pool), pool.store.keys.bucket_of("ghost"))
    pool.redis.hset(key, "ghost", codec.pack_trade(made))

    report = pool.check_all_trades(deep=True)

    assert {"missing_in_journal", "index_missing", "summary_fold"} <= rules_of(report)


def test_an_older_version_is_stale(pool, trade_id):
    first = codec.pack_trade(pool.get_trade_history(trade_id)[0])
    pool.redis.hset(record_key(pool, trade_id), trade_id, first)

    assert "stale_in_redis" in rules_of(pool.check_all_trades(deep=True))


def test_other_content_under_the_same_version_is_different(pool, trade_id):
    overwrite(pool, trade_id, strategy="forged")

    assert rules_of(pool.check_all_trades(deep=True)) == {"different_in_redis"}


def test_a_flipped_byte_is_found(pool, trade_id):
    key = record_key(pool, trade_id)
    value = bytearray(pool.redis.hget(key, trade_id))
    value[codec.HEADER_CHARS + 30] ^= 1
    pool.redis.hset(key, trade_id, bytes(value))

    assert "corrupt_record" in rules_of(pool.check_all_trades(deep=True))
    assert "corrupt_record" in rules_of(pool.check_trades("ann"))


def test_a_kind_of_a_newer_release_is_not_taken_for_another(pool, trade_id):
    body = codec.encode_trade(pool.get_trade(trade_id))
    pool.redis.hset(record_key(pool, trade_id), trade_id, codec.pack(9, body, "z", codec.NO_STATUS))

    found = [f for f in pool.check_all_trades(deep=True).findings if f.rule == "corrupt_record"]

    assert [(f.subject, "only a newer release" in f.detail) for f in found] == [(trade_id, True)]


def test_forged_figures_do_not_follow_from_the_fills(pool, trade_id):
    overwrite(pool, trade_id, pnl_net=pool.get_trade(trade_id).pnl_net + 1)

    report = pool.check_trades("ann")

    assert {"recomputed_figures", "summary_fold"} <= rules_of(report)
    assert any("pnl_net: stored 11" in f.detail for f in report.findings)


def test_impossible_quantities_are_found(pool, trade_id):
    overwrite(pool, trade_id, closed=pool.get_trade(trade_id).amount + 1)

    assert "quantities" in rules_of(pool.check_all_trades(deep=True))


def test_a_trade_out_of_its_index_is_found(pool, trade_id):
    pool.redis.zrem(pool.store.keys.user_index(shard_of(pool), "ann"), trade_id)

    assert rules_of(pool.check_all_trades(deep=True)) == {"index_missing"}


def test_an_open_set_that_disagrees_is_found(pool, trade_id):
    keys = pool.store.keys
    pool.redis.zadd(keys.open_trades(shard_of(pool)), {keys.open_member("ann", trade_id): 0})

    assert rules_of(pool.check_all_trades(deep=True)) == {"open_set"}


def test_a_reservation_that_nobody_would_give_back_is_found(pool, trade_id):
    pool.redis.delete(pool.store.keys.expiries(shard_of(pool)))

    for report in (pool.check_all_trades(deep=True), pool.check_trades("ann", deep=False)):
        assert rules_of(report) == {"expiry_index"}
        assert (report.findings[0].severity, report.findings[0].subject) == ("critical", "ann/default")


def test_an_expiry_of_a_ledger_that_has_none_is_found(pool, trade_id):
    pool.redis.zadd(pool.store.keys.expiries(shard_of(pool)), {"ann\x1fother": 7})

    for report in (pool.check_all_trades(deep=True), pool.check_trades("ann")):
        assert [finding.severity for finding in report.findings] == ["warning"]
        assert rules_of(report) == {"expiry_index"}

    pool.redis.zadd(pool.store.keys.expiries(shard_of(pool)), {"nobody\x1fother": 7})

    assert len(pool.check_trades("ann").findings) == 1
    assert len(pool.check_all_trades(deep=True).findings) == 2


def test_an_id_that_leads_to_nobody_is_found(pool):
    pool.add_trade(buy(trade_id="7"))
    pool.store.move_route("7", 1 + pool.store.routes(["7"])[0])

    assert rules_of(pool.check_all_trades(deep=True)) == {"route"}


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


def test_a_changed_balance_is_found(pool, trade_id):
    record_id = "ann\x1fdefault"
    key = record_key(pool, record_id)
    value = pool.redis.hget(key, record_id)
    changed = codec.split(value)[1].replace(b'"5"', b'"6"')
    pool.redis.hset(key, record_id, value[: codec.HEADER_CHARS] + packed(changed))

    assert "corrupt_record" in rules_of(pool.check_trades("ann"))


def test_changes_during_an_audit_are_no_findings(pool):
    stop = threading.Event()

    def trade(user_id):
        while not stop.is_set():
            trade_id = pool.add_trade(buy(user_id=user_id)).trade_id
            pool.add_fill(trade_id, entry(f"{trade_id}/1"))
            pool.close_trade(trade_id, "101")
            pool.update_available_tokens(user_id, {"USDT": 1})
            reservation = pool.reserve_tokens(user_id, "USDT", 1, trade_id, HOUR_S)
            pool.release_tokens(reservation.reservation_id)

    bots = [threading.Thread(target=trade, args=(name,)) for name in ("ann", "bob", "cy")]
    for bot in bots:
        bot.start()
    try:
        reports = [pool.check_all_trades(deep=deep) for deep in (True, False) * 8]
        reports += [pool.check_trades("ann") for _ in range(8)]
    finally:
        stop.set()
        for bot in bots:
            bot.join()
    assert [report.findings for report in reports if not report.ok] == []


def test_repair_is_refused_in_one_line(pool):
    with pytest.raises(errors.Misconfigured, match="tradepool recover"):
        pool.check_all_trades(repair=True)
