"""Audits of archived trades: every planted fault is found, and nothing that merely moves is one."""

from __future__ import annotations

import shutil
import threading

import msgspec
import pytest

from tests.archived_trades import USERS, closed_trade
from tradepool import TradePool, archiving, errors
from tradepool.archive.database import connected, parts_table
from tradepool.archive.parts import drop_rows
from tradepool.model import codec


@pytest.fixture
def pool(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as opened:
        yield opened


@pytest.fixture
def trade_id(pool):
    """An archived trade of ann's, beside another of hers, one of bob's and an open one."""
    found = closed_trade(pool, days_ago=20)
    closed_trade(pool, days_ago=20)
    closed_trade(pool, "bob", days_ago=21)
    assert pool.archive_closed_trades().archived == 3
    closed_trade(pool, days_ago=1)
    return found


def part_of(pool):
    """The part that holds ann's two trades."""
    return max((pool.settings.data_dir / "archive").glob("day=*/*.parquet"))


def record_of(pool, trade_id):
    shard = pool.store.shard_of_trade(trade_id)
    key = pool.store.keys.records(shard, pool.store.keys.bucket_of(trade_id))
    return shard, key, pool.redis.hget(key, trade_id)


def overwrite(pool, trade_id, **fields):
    _, key, value = record_of(pool, trade_id)
    changed = msgspec.structs.replace(codec.unpack_archived(value), **fields)
    pool.redis.hset(key, trade_id, codec.pack_archived(changed))


def found_by(pool):
    """The rules broken, by the audit of all and by that of ann: deep, they find the same of her trades."""
    every, of_ann = pool.check_all_trades(deep=True), pool.check_trades("ann")
    found = {(finding.rule, finding.subject) for finding in every.findings}
    assert {each for each in found if each[1] != "bob"} == {(f.rule, f.subject) for f in of_ann.findings}
    return found


def seal_of(part):
    return part.with_name(f"{part.name}.sha256")


def test_a_part_that_is_gone_leaves_its_trades_missing(pool, trade_id):
    part_of(pool).unlink()
    found = found_by(pool)
    assert ("archive_missing", trade_id) in found
    assert {rule for rule, _ in found} == {"archive_missing"}
    assert len(found) == 2


def test_one_row_that_is_gone_is_missing(pool, trade_id):
    drop_rows(part_of(pool), [trade_id])
    assert found_by(pool) == {("archive_missing", trade_id)}


def test_a_row_with_another_record_is_different(pool, trade_id):
    part = part_of(pool)
    changed = f"if(trade_id = '{trade_id}', replace(record, '110', '111'), record) AS record"
    with connected() as database:
        table = parts_table(f"'{part}'")
        database.execute(f"COPY (SELECT * REPLACE ({changed}) FROM {table}) TO '{part}.2' (FORMAT parquet)")
    shutil.move(f"{part}.2", part)
    damaged = {(f.rule, f.subject) for f in pool.check_all_trades(deep=True).findings}
    assert damaged == {("archive_damaged", f"{part.parent.name}/{part.name}")}
    seal_of(part).unlink()
    assert found_by(pool) == {("archive_different", trade_id)}


def test_a_row_that_is_there_twice_is_different(pool, trade_id):
    part = part_of(pool)
    shutil.copy(part, part.with_name("part-00002.parquet"))
    drop_rows(part, [trade_id])
    shutil.copy(part.with_name("part-00002.parquet"), part.with_name("part-00003.parquet"))
    assert ("archive_different", trade_id) in found_by(pool)


def test_a_damaged_part_is_named_and_nothing_is_missing_that_may_be_in_it(pool, trade_id):
    part = part_of(pool)
    part.write_bytes(part.read_bytes()[:-7])
    assert found_by(pool) == {("archive_damaged", f"{part.parent.name}/{part.name}")}


def test_a_part_that_no_reader_would_object_to_is_held_against_its_checksum(pool, trade_id):
    """A column that repeats a part of the JSON, or nothing at all: bytes between the pages of the file."""
    part = part_of(pool)
    with connected() as database:
        table = parts_table(f"'{part}'")
        changed = "SELECT * REPLACE ('kroken' AS exchange)"
        database.execute(f"COPY ({changed} FROM {table}) TO '{part}.2' (FORMAT parquet)")
    shutil.move(f"{part}.2", part)
    report = pool.check_all_trades(deep=True)
    assert [(f.rule, f.subject) for f in report.findings] == [
        ("archive_damaged", f"{part.parent.name}/{part.name}")
    ]
    assert report.undecided == ()


@pytest.mark.parametrize("text", [b"", b"0" * 64, b"g" * 64 + b"  part-00001.parquet\n"])
def test_a_checksum_that_cannot_be_read_is_damage(pool, trade_id, text):
    part = part_of(pool)
    seal_of(part).write_bytes(text)
    found = {(f.rule, f.subject) for f in pool.check_all_trades(deep=True).findings}
    assert found == {("archive_damaged", f"{part.parent.name}/{part.name}")}


def test_a_part_without_a_checksum_is_undecided_until_the_next_run_gives_it_one(pool, trade_id):
    part = part_of(pool)
    whole = seal_of(part).read_bytes()
    seal_of(part).unlink()
    report = pool.check_all_trades(deep=True)
    assert (report.findings, len(report.undecided)) == ((), 1)
    assert part.name in report.undecided[0]

    assert pool.archive_closed_trades().archived == 0
    assert seal_of(part).read_bytes() == whole
    assert pool.check_all_trades(deep=True).undecided == ()


def test_a_part_whose_rows_are_wrong_is_given_no_checksum(pool, trade_id):
    part = part_of(pool)
    changed = "replace(record, '110', '111') AS record"
    with connected() as database:
        table = parts_table(f"'{part}'")
        database.execute(f"COPY (SELECT * REPLACE ({changed}) FROM {table}) TO '{part}.2' (FORMAT parquet)")
    shutil.move(f"{part}.2", part)
    seal_of(part).unlink()
    pool.archive_closed_trades()
    assert not seal_of(part).exists()
    assert pool.check_all_trades(deep=True).counts == {"archive_different": 2}


def test_no_row_is_dropped_from_a_part_that_is_damaged(pool, trade_id):
    part = part_of(pool)
    damaged = part.read_bytes() + b"x"
    part.write_bytes(damaged)
    with pytest.raises(errors.Corrupt, match=part.name):
        drop_rows(part, [trade_id])
    assert part.read_bytes() == damaged


def test_what_is_left_of_a_trade_must_be_what_the_journal_says(pool, trade_id):
    overwrite(pool, trade_id, day="2020-01-01")
    assert found_by(pool) == {("different_in_redis", trade_id)}
    overwrite(pool, trade_id, version=2)
    assert ("stale_in_redis", trade_id) in found_by(pool)


def test_what_is_left_of_a_trade_must_be_readable(pool, trade_id):
    _, key, value = record_of(pool, trade_id)
    pool.redis.hset(key, trade_id, value[:30])
    assert ("corrupt_record", trade_id) in found_by(pool)


def test_an_archived_trade_that_redis_lost_is_missing_there(pool, trade_id):
    _, key, _ = record_of(pool, trade_id)
    pool.redis.hdel(key, trade_id)
    assert found_by(pool) == {("missing_in_redis", trade_id)}


def test_an_archived_trade_that_the_journal_never_saw_is_missing_there(pool, trade_id):
    shard, _, value = record_of(pool, trade_id)
    ghost = msgspec.structs.replace(codec.unpack_archived(value), trade_id="ghost")
    key = pool.store.keys.records(shard, pool.store.keys.bucket_of("ghost"))
    pool.redis.hset(key, "ghost", codec.pack_archived(ghost))
    found = {(f.rule, f.subject) for f in pool.check_all_trades(deep=True).findings}
    assert {("missing_in_journal", "ghost"), ("archive_missing", "ghost")} == found


def test_the_counters_of_archived_trades_are_held_against_the_lifetime(pool, trade_id):
    key = pool.store.keys.archived_counters(pool.store.keys.shard_of_user("ann"), "ann")
    pool.redis.hincrby(key, "real|USDT|win", 1)
    assert found_by(pool) == {("summary_fold", "ann")}


@pytest.mark.parametrize("index", ["user", "open"])
def test_an_archived_trade_that_is_still_indexed_is_extra(pool, trade_id, index):
    keys, shard = pool.store.keys, pool.store.keys.shard_of_user("ann")
    if index == "user":
        pool.redis.zadd(keys.user_index(shard, "ann"), {trade_id: 1})
    else:
        pool.redis.zadd(keys.open_trades(shard), {keys.open_member("ann", trade_id): 0})
    assert found_by(pool) == {("index_extra", trade_id)}


def test_without_the_archive_an_audit_looks_at_the_store_only(pool, trade_id):
    archive = pool.settings.data_dir / "archive"
    archive.rename(archive.with_name("elsewhere"))
    assert found_by(pool) == set()


def test_a_left_over_row_of_a_live_trade_is_no_finding(pool, trade_id, monkeypatch):
    live = closed_trade(pool, days_ago=20)

    def fail(*_args):
        raise errors.StoreUnavailable("the server went away")

    monkeypatch.setattr(archiving.Archiving, "_commit", fail)
    with pytest.raises(errors.StoreUnavailable):
        pool.archive_closed_trades()
    assert found_by(pool) == set()
    assert pool.get_trade(live).status == "completed"


@pytest.mark.slow
def test_trades_that_move_during_an_audit_are_no_findings(pool, monkeypatch):
    monkeypatch.setattr(archiving, "PART_TRADES_MAX", 3)
    for number in range(30):
        closed_trade(pool, USERS[number % 2], days_ago=20)
    ended, reports = threading.Event(), []

    def audit():
        while not ended.is_set():
            reports.extend([pool.check_all_trades(deep=True), pool.check_trades("ann")])

    auditor = threading.Thread(target=audit)
    auditor.start()
    try:
        for number in range(10):
            closed_trade(pool, USERS[number % 2], days_ago=10)
            pool.archive_closed_trades()
    finally:
        ended.set()
        auditor.join(60)
    assert reports
    assert [finding for report in reports for finding in report.findings] == []
