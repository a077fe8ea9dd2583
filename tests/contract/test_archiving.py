"""Closed trades move to the archive: nobody who reads can tell, and nobody can change them any more."""

from __future__ import annotations

import sys

import pytest

from tests.archived_trades import (
    DAY_US,
    USERS,
    archive_rows,
    changed,
    closed_trade,
    everything,
    pages,
    some_of_each,
)
from tests.loose_trades import buy, entry
from tradepool import Settings, TradePool, archiving, errors
from tradepool.clock import now_us
from tradepool.files.durable import FileLock
from tradepool.model import codec


@pytest.fixture
def pool(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as opened:
        yield opened


@pytest.fixture
def elsewhere(pool, tmp_path):
    """The same pool on a machine without the archive."""
    settings = Settings(redis_url=pool.settings.redis_url, data_dir=tmp_path / "elsewhere", shard_count=2)
    with TradePool.connect(settings) as opened:
        yield opened


def kind_of(pool, trade_id):
    value = pool.store.read([(pool.store.shard_of_trade(trade_id), trade_id)])[0]
    return codec.read_header(value).kind


def assert_clean(pool):
    report = pool.check_all_trades(deep=True)
    assert (report.findings, report.undecided) == ((), ())
    for user_id in USERS:
        assert pool.check_trades(user_id).findings == ()


def test_nobody_who_reads_can_tell_whether_a_trade_is_archived(pool):
    old = some_of_each(pool)
    before = everything(pool)

    report = pool.archive_closed_trades()

    assert (report.archived, report.complete) == (len(old), True)
    assert len(report.days) == 6
    assert report.bytes > 0
    assert sorted(archive_rows(pool)) == sorted(old)
    assert everything(pool) == before
    assert_clean(pool)


def test_what_closed_within_the_retention_and_what_is_open_stays(pool):
    old = some_of_each(pool)
    pool.archive_closed_trades()
    archived = {trade.trade_id for trade in pool.get_all_trades() if kind_of(pool, trade.trade_id) == "a"}
    assert archived == set(old)
    assert pool.archive_closed_trades().archived == 0


def test_a_trade_that_never_closed_waits_from_its_last_change_on(pool):
    at = now_us() - 30 * DAY_US
    trade_id = pool.add_trade(buy(created_at=at)).trade_id
    pool.update_trade(trade_id, status="cancelled")
    assert pool.archive_closed_trades().archived == 0


def test_without_any_retention_only_final_trades_move(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=2, retention_s=0) as pool:
        old = some_of_each(pool)
        closed = {trade.trade_id for trade in pool.get_all_trades() if not trade.is_open}
        assert pool.archive_closed_trades().archived == len(closed) == len(old) + 2
        assert {kind_of(pool, trade.trade_id) for trade in pool.get_open_trades()} == {"t"}


def test_it_stands_under_the_utc_day_on_which_it_ended(pool):
    closed_trade(pool, days_ago=12)
    (day,) = pool.archive_closed_trades().days
    trade = next(pool.get_all_trades())
    assert day == pool.sql("SELECT strftime(closed_at, '%Y-%m-%d') FROM trades").rows[0][0]
    assert (pool.settings.data_dir / "archive" / f"day={day}" / "part-00001.parquet").is_file()
    assert trade.status == "completed"


def test_an_archived_trade_does_not_change(pool):
    trade_id = closed_trade(pool)
    pool.archive_closed_trades()
    before = everything(pool)
    for late in (
        lambda: pool.add_fill(trade_id, entry("late")),
        lambda: pool.update_trade(trade_id, strategy="other"),
        lambda: pool.update_trade_pnl(trade_id, "5"),
        lambda: pool.close_trade(trade_id, "120"),
    ):
        with pytest.raises(errors.IllegalTransition, match="archived"):
            late()
    assert everything(pool) == before


def test_a_late_repeat_of_an_add_is_a_duplicate_on_every_host(pool, elsewhere):
    at = now_us() - 30 * DAY_US
    given = buy(trade_id="own id", created_at=at)
    trade_id = closed_trade(pool, trade_id="own id", created_at=at)
    pool.archive_closed_trades()
    assert kind_of(pool, trade_id) == "a"
    for anywhere in (pool, elsewhere):
        assert anywhere.add_trade(given).outcome == "duplicate"
        with pytest.raises(errors.IdempotencyConflict):
            anywhere.add_trade(given | {"amount": "3"})
    assert_clean(pool)


def test_without_the_archive_a_read_says_where_the_trade_is(pool, elsewhere):
    old = some_of_each(pool)
    expected = {user_id: pool.get_user_summary(user_id) for user_id in USERS}
    pool.archive_closed_trades()
    with pytest.raises(errors.UnknownTrade, match=r"archived under 20.*files worker"):
        elsewhere.get_trade(old[0])
    for user_id in USERS:
        found = elsewhere.get_user_summary(user_id)
        assert (found.trade_count, found.pnl, found.wins) == (8, expected[user_id].pnl, 7)
        assert found.archived_left_out == len(old) / 2
        assert expected[user_id].archived_left_out == 0
    assert {trade.trade_id for trade in elsewhere.get_all_trades()}.isdisjoint(old)
    for whole in (
        lambda: elsewhere.export(elsewhere.settings.data_dir.parent / "all.jsonl"),
        lambda: elsewhere.export(elsewhere.settings.data_dir.parent / "ann.jsonl", user_id="ann"),
        lambda: elsewhere.sql("FROM trades"),
    ):
        with pytest.raises(errors.Misconfigured, match="no archive in"):
            whole()


def test_only_the_owner_of_the_journal_archives(elsewhere):
    with pytest.raises(errors.Misconfigured, match=r"tasks\.files\.archive_closed_trades"):
        elsewhere.archive_closed_trades()


def test_a_page_goes_on_where_it_stopped_although_its_trades_were_archived_meanwhile(pool):
    some_of_each(pool)
    whole = pages(pool.get_trades_by_user, "ann")
    for limit in range(1, len(whole)):
        first = pool.get_trades_by_user("ann", limit=limit)
        pool.archive_closed_trades()
        rest = pool.get_trades_by_user("ann", cursor=first.cursor)
        assert first.trades + rest.trades == whole


def test_a_page_narrows_archived_trades_as_it_does_live_ones(pool):
    some_of_each(pool)
    since, until = now_us() - 29 * DAY_US - DAY_US // 2, now_us() - 18 * DAY_US - DAY_US // 2
    asked = [
        {"since": since},
        {"until": until},
        {"since": since, "until": until},
        {"source": "paper"},
        {"status": "completed", "since": since, "limit": 2},
    ]
    before = [pages(pool.get_trades_by_user, "ann", **narrowing) for narrowing in asked]
    pool.archive_closed_trades()
    assert [pages(pool.get_trades_by_user, "ann", **narrowing) for narrowing in asked] == before
    assert before[0]


def test_a_trade_that_changes_while_it_is_archived_stays_live(pool, monkeypatch):
    trade_id, other = closed_trade(pool), closed_trade(pool)
    write = archiving.write_part

    def write_while_others_work(part, trades, **options):
        count = write(part, trades, **options)
        changed(pool, trade_id)
        return count

    monkeypatch.setattr(archiving, "write_part", write_while_others_work)
    assert pool.archive_closed_trades().archived == 1
    assert archive_rows(pool) == [other]
    assert pool.get_trade(trade_id).strategy == "late"
    monkeypatch.undo()
    assert pool.archive_closed_trades().archived == 1
    assert sorted(archive_rows(pool)) == sorted([trade_id, other])
    assert pool.get_trade(trade_id).strategy == "late"
    assert_clean(pool)


def test_a_commit_that_loses_its_race_does_not_take_the_others_with_it(pool, monkeypatch):
    trade_id, other = closed_trade(pool), closed_trade(pool)
    commit, late = pool.store.commit_all, []

    def commit_after_others(changes):
        if not late:
            late.append(trade_id)
            changed(pool, trade_id)
        return commit(changes)

    monkeypatch.setattr(pool.store, "commit_all", commit_after_others)
    assert pool.archive_closed_trades().archived == 1
    assert archive_rows(pool) == [other]
    assert_clean(pool)


def test_two_runs_at_once_are_not_mixed(pool):
    closed_trade(pool)
    (pool.settings.data_dir / "archive").mkdir()
    lock = FileLock(pool.settings.data_dir / "archive" / "archive.lock")
    with pytest.raises(errors.PoolLocked):
        pool.archive_closed_trades()
    lock.close()
    assert pool.archive_closed_trades().archived == 1


def test_a_full_disk_moves_nothing_and_the_next_run_goes_on(pool, monkeypatch):
    trade_id = closed_trade(pool)
    before = everything(pool)

    def fail(_fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("tradepool.files.durable.os.fsync", fail)
        with pytest.raises(errors.ResourceUnavailable, match="No space left"):
            pool.archive_closed_trades()
    assert kind_of(pool, trade_id) == "t"
    assert everything(pool) == before
    assert pool.archive_closed_trades().archived == 1
    assert everything(pool) == before


def test_without_duckdb_it_says_what_to_install(pool, monkeypatch):
    closed_trade(pool)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for needs_it in (pool.archive_closed_trades, lambda: pool.sql("FROM trades")):
        with pytest.raises(errors.Misconfigured, match=r"tradepool\[archive\]"):
            needs_it()


def test_many_trades_of_a_day_become_parts_of_bounded_size(pool, monkeypatch):
    monkeypatch.setattr(archiving, "PART_TRADES_MAX", 2)
    monkeypatch.setattr(archiving, "ROUND_TRADES_MAX", 5)
    for _ in range(7):
        closed_trade(pool, days_ago=20)
    before = everything(pool)
    assert pool.archive_closed_trades().archived == 7
    names = sorted(part.name for part in (pool.settings.data_dir / "archive").glob("day=*/*.parquet"))
    assert names == [f"part-{number:05d}.parquet" for number in range(1, 5)]
    assert everything(pool) == before


def test_a_run_out_of_time_leaves_the_rest_to_the_next(pool, monkeypatch):
    closed_trade(pool, days_ago=20)
    closed_trade(pool, days_ago=21)
    monkeypatch.setattr(archiving, "RUN_S_MAX", -1.0)
    report = pool.archive_closed_trades()
    assert (report.archived, report.complete) == (0, False)


def test_the_idempotency_key_of_an_archived_trade_is_free_again(pool):
    trade_id = closed_trade(pool, idempotency_key="mine")
    pool.archive_closed_trades()
    again = pool.add_trade(buy(idempotency_key="mine"))
    assert again.outcome == "applied"
    assert again.trade_id != trade_id
    assert_clean(pool)


def test_a_recovered_pool_reads_its_archive(pool, tmp_path):
    some_of_each(pool)
    pool.archive_closed_trades()
    before = everything(pool)
    pool.close()
    for old in (tmp_path / "pool" / "server").glob("appendonlydir/*"):
        old.unlink()
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as again:
        assert everything(again) == before
        assert_clean(again)
