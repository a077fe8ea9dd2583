"""Snapshots of a store in use: plain JSON for everybody, byte for byte what was stored."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from tests.pool_at_work import PoolAtWork, contents
from tradepool import snapshots
from tradepool.clock import now_us
from tradepool.errors import Corrupt, JournalUnavailable, PoolLocked
from tradepool.files.durable import FileLock
from tradepool.files.journal import Journal
from tradepool.files.snapshot import read_archived_counters, read_snapshot
from tradepool.files.snapshot_info import (
    ARCHIVED_COUNTERS_NAME,
    ARCHIVED_NAME,
    LEDGERS_NAME,
    NAMES,
    SNAPSHOT_NAME,
    TRADES_NAME,
    finish_snapshot,
    is_whole,
    load_snapshot,
)
from tradepool.model.codec import pack, unpack_trade
from tradepool.snapshots import write_snapshot


def take(pool: PoolAtWork, wait_s: float = 5.0):
    return write_snapshot(pool.store, pool.journal, pool.settings.data_dir, wait_s=wait_s)


def stored_values(pool: PoolAtWork) -> set[bytes]:
    return {value for shard in range(4) for _, value in pool.store.scan_records(shard)}


def test_it_is_a_json_array_with_a_trade_a_line_and_amounts_as_text(pool):
    trade = pool.add("ann")
    pool.add("bob")
    pool.drain()
    info = take(pool)
    text = (pool.settings.data_dir / TRADES_NAME).read_text()
    trades = {item["trade_id"]: item for item in json.loads(text)}
    assert len(trades) == len(text.splitlines()) - 2 == info.trades.count == 2
    assert trades[trade.trade_id]["amount"] == "1"
    assert trades[trade.trade_id]["fills"][0]["price"] == "100"


def test_every_record_is_read_back_byte_for_byte(pool):
    pool.trade_a_while()
    pool.drain()
    info = take(pool)
    records = list(read_snapshot(pool.settings.data_dir, lambda _: True))
    assert {record.value for record in records} == stored_values(pool)
    assert (info.trades.count, info.ledgers.count) == (20, 5)
    assert len(json.loads((pool.settings.data_dir / LEDGERS_NAME).read_text())) == 5


def test_an_empty_pool_has_an_empty_snapshot(pool):
    take(pool)
    assert json.loads((pool.settings.data_dir / TRADES_NAME).read_text()) == []
    assert list(read_snapshot(pool.settings.data_dir, lambda _: True)) == []


def test_it_is_dated_by_its_beginning_so_that_all_that_was_there_then_is_in_it(pool, monkeypatch):
    read, scanned_from = snapshots._write_shard, []

    def read_later(*args):
        scanned_from.append(now_us())
        read(*args)

    monkeypatch.setattr(snapshots, "_write_shard", read_later)
    assert take(pool).at <= scanned_from[0]


def test_the_sidecar_says_where_the_journal_stood_before_the_scan(pool):
    pool.add("ann")
    pool.drain()
    before = pool.journal.point
    info = take(pool)
    assert info == load_snapshot(pool.settings.data_dir)
    assert (info.journal, info.point) == (pool.journal.id, before)
    shard = pool.keys.shard_of_user("ann")
    assert info.covers == {shard: pool.store.last_position(shard)}


def test_nothing_is_replaced_before_the_journal_has_what_was_scanned(pool):
    pool.add("ann")
    pool.drain()
    take(pool)
    folder = pool.settings.data_dir
    old = {name: (folder / name).read_bytes() for name in (TRADES_NAME, LEDGERS_NAME, SNAPSHOT_NAME)}
    pool.add("bob")
    with pytest.raises(JournalUnavailable, match="does not catch up"):
        take(pool, wait_s=0.05)
    assert {name: (folder / name).read_bytes() for name in old} == old
    assert not list(folder.glob("*.new"))


def test_it_waits_for_a_writer_at_work(pool):
    pool.add("ann")
    taken = []
    snapshot = threading.Thread(target=lambda: taken.append(take(pool)))
    snapshot.start()
    pool.drain()
    snapshot.join(10)
    assert taken[0].trades.count == 1
    assert taken[0].point.seq in (0, 2)


def test_two_snapshots_at_once_are_not_mixed(pool):
    lock = FileLock(pool.settings.data_dir / "snapshot.lock")
    with pytest.raises(PoolLocked):
        take(pool)
    lock.close()
    take(pool)


def test_a_full_disk_leaves_the_last_snapshot(pool, monkeypatch):
    pool.add("ann")
    pool.drain()
    info = take(pool)

    def fail(_fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fail)
        with pytest.raises(JournalUnavailable, match="No space left"):
            take(pool)
    assert is_whole(pool.settings.data_dir, info)
    assert load_snapshot(pool.settings.data_dir) == info


def test_a_record_of_a_newer_release_is_not_left_out(pool):
    trade = pool.add("ann")
    pool.drain()
    key = pool.keys.records(pool.keys.shard_of_user("ann"), pool.keys.bucket_of(trade.trade_id))
    pool.client.hset(key, trade.trade_id, pack(2, b"{}", "z", "-"))
    with pytest.raises(Corrupt, match="only a newer release"):
        take(pool)
    assert load_snapshot(pool.settings.data_dir) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[]"])
def test_a_damaged_sidecar_is_no_sidecar(pool, content):
    take(pool)
    (pool.settings.data_dir / SNAPSHOT_NAME).write_bytes(content)
    assert load_snapshot(pool.settings.data_dir) is None


def test_a_record_that_a_scan_returns_twice_is_written_once(pool, monkeypatch):
    pool.add("ann")
    pool.drain()
    scan = pool.store.scan_records
    monkeypatch.setattr(pool.store, "scan_records", lambda shard: [*scan(shard), *scan(shard)])
    assert take(pool).trades.count == 1


def test_a_snapshot_holds_a_change_made_while_it_was_scanned_or_replays_it(pool, monkeypatch):
    trade = pool.add("ann")
    pool.drain()
    scan = pool.store.scan_records
    shard = pool.keys.shard_of_user("ann")

    def scan_while_trading(number):
        found = list(scan(number))
        if number == shard:
            pool.add_closed("ann")
            pool.drain()
        return found

    monkeypatch.setattr(pool.store, "scan_records", scan_while_trading)
    assert take(pool).trades.count == 1
    monkeypatch.undo()
    before = stored_values(pool)
    pool.lose_everything()
    report = pool.begin()
    assert (report.from_snapshot, report.replayed) == (1, 3)
    assert stored_values(pool) == before
    assert trade in [unpack_trade(value) for value in before]


def test_a_trade_added_just_before_its_shard_was_scanned_is_there_once(pool, monkeypatch):
    """The snapshot has it, and so has the part of the journal that is replayed on top."""
    pool.add("ann")
    pool.drain()
    scan = pool.store.scan_records

    def scan_after_trading(number):
        if number == pool.keys.shard_of_user("ann"):
            pool.add("ann")
            pool.drain()
        return scan(number)

    monkeypatch.setattr(pool.store, "scan_records", scan_after_trading)
    assert take(pool).trades.count == 2
    monkeypatch.undo()
    before = contents(pool)
    pool.lose_everything()
    report = pool.begin()
    assert (report.from_snapshot, report.replayed) == (2, 2)
    assert contents(pool) == before


def test_only_the_journals_id_matters_not_where_the_folder_is(pool, tmp_path):
    pool.add("ann")
    pool.drain()
    take(pool)
    pool.journal.close()
    moved = pool.settings.data_dir.rename(tmp_path / "moved")
    with Journal(moved / "trade_pool.log", 4) as journal:
        assert load_snapshot(moved).journal == journal.id


def test_what_is_left_of_archived_trades_has_files_of_its_own(pool):
    pool.add_closed("ann")
    pool.archive_closed("ann")
    pool.add("ann")
    pool.drain()
    info = take(pool)
    (left,) = json.loads((pool.settings.data_dir / ARCHIVED_NAME).read_text())
    (counted,) = json.loads((pool.settings.data_dir / ARCHIVED_COUNTERS_NAME).read_text())
    assert (left["user_id"], left["version"], info.archived.count) == ("ann", 4, 1)
    assert (counted["user_id"], counted["counters"]["real|USDT|pnl"]) == ("ann", "1000000000")
    assert dict(read_archived_counters(pool.settings.data_dir)) == {
        "ann": pool.store.archived_counters("ann")
    }
    assert {
        record.value for record in read_snapshot(pool.settings.data_dir, lambda _: True)
    } == stored_values(pool)


def test_a_shard_in_which_trades_were_archived_meanwhile_is_scanned_again(pool, monkeypatch):
    for _ in range(3):
        pool.add_closed("ann")
    pool.drain()
    scan, archived_meanwhile = pool.store.scan_records, []

    def scan_while_archiving(number):
        found = list(scan(number))
        if number == pool.keys.shard_of_user("ann") and not archived_meanwhile:
            archived_meanwhile.append(number)
            pool.archive_closed("ann")
            pool.drain()
        return found

    monkeypatch.setattr(pool.store, "scan_records", scan_while_archiving)
    info = take(pool)
    assert (info.trades.count, info.archived.count, info.archived_counters.count) == (0, 3, 1)
    assert is_whole(pool.settings.data_dir, info)
    assert json.loads((pool.settings.data_dir / TRADES_NAME).read_text()) == []


def test_a_shard_that_is_never_quiet_costs_the_snapshot_not_the_truth(pool, monkeypatch):
    scan = pool.store.scan_records
    shard = pool.keys.shard_of_user("ann")

    def scan_while_archiving(number):
        if number == shard:
            pool.add_closed("ann")
            pool.archive_closed("ann")
            pool.drain()
        return list(scan(number))

    monkeypatch.setattr(pool.store, "scan_records", scan_while_archiving)
    with pytest.raises(JournalUnavailable, match="trades are being archived"):
        take(pool)


@pytest.mark.parametrize("renamed", range(len(NAMES)))
def test_a_crash_between_two_names_costs_neither_snapshot(pool, monkeypatch, renamed):
    folder = pool.settings.data_dir
    pool.add("ann")
    pool.drain()
    take(pool)
    pool.add("bob")
    pool.drain()
    replace, done = Path.replace, []

    def dies(path, target):
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(path)
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            take(pool)
    finish_snapshot(folder)

    info = load_snapshot(folder)
    assert is_whole(folder, info)
    assert info.trades.count == 2
    assert not list(folder.glob("*.new"))


@pytest.mark.parametrize("file", range(len(NAMES)))
def test_a_disk_that_fails_under_a_snapshot_leaves_the_last_one(pool, monkeypatch, file):
    folder = pool.settings.data_dir
    pool.add("ann")
    pool.drain()
    before = take(pool)
    pool.add("bob")
    pool.drain()
    fsync, done = os.fsync, []

    def fails(descriptor):
        if len(done) == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(descriptor)
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(JournalUnavailable, match="No space"):
            take(pool)
    finish_snapshot(folder)

    assert load_snapshot(folder) == before
    assert is_whole(folder, before)
