"""What archiving never does: drop a row, free a key, hide a trade on a mere answer or an empty folder."""

from __future__ import annotations

import shutil

import pytest

from tests.archived_trades import DAY_US, applied_at, archive_rows, closed_trade, everything
from tests.loose_trades import buy, entry
from tests.trade_builders import fill_fields
from tradepool import TradePool, archiving, commanding, errors
from tradepool.client.confirmation import Confirmation
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry
from tradepool.clock import now_us
from tradepool.model import codec
from tradepool.store.redis_store import RedisStore


@pytest.fixture
def pool(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=2) as opened:
        yield opened


def archive_of(pool):
    return pool.settings.data_dir / "archive"


def record_of(pool, trade_id):
    return pool.store.read([(pool.store.shard_of_trade(trade_id), trade_id)])[0]


def run_that_dies(pool, monkeypatch):
    """A run that ends between its part and its commit; what it was about to commit."""
    unsent = []

    def die(_store, changes):
        unsent.append(changes)
        raise errors.StoreUnavailable("no route to the server")

    with monkeypatch.context() as broken:
        broken.setattr(RedisStore, "commit_all", die)
        with pytest.raises(errors.StoreUnavailable):
            pool.archive_closed_trades()
    return unsent[0]


def assert_whole(pool, before):
    assert everything(pool) == before
    report = pool.check_all_trades(deep=True)
    assert (report.findings, report.undecided) == ((), ())


def test_a_commit_that_is_sent_twice_keeps_its_rows(pool, monkeypatch):
    """Its answer was lost, and the repeat of it is refused because of what the first one wrote."""
    old = [closed_trade(pool, days_ago=20) for _ in range(3)]
    before = everything(pool)
    commit = RedisStore.commit_all

    def commit_twice(store, changes):
        commit(store, changes)
        return commit(store, changes)

    monkeypatch.setattr(RedisStore, "commit_all", commit_twice)
    assert pool.archive_closed_trades().archived == 3
    assert sorted(archive_rows(pool)) == sorted(old)
    assert_whole(pool, before)


def test_a_commit_that_arrives_after_its_run_ended_keeps_its_rows(pool, monkeypatch):
    trade_id = closed_trade(pool)
    before = everything(pool)
    late = run_that_dies(pool, monkeypatch)
    drop = archiving.drop_rows

    def drop_too_late(part, trade_ids):
        pool.store.commit_all(late)
        drop(part, trade_ids)

    monkeypatch.setattr(archiving, "drop_rows", drop_too_late)
    assert pool.archive_closed_trades().archived == 1
    assert pool.store.commit_all(late) == {}
    assert archive_rows(pool) == [trade_id]
    assert_whole(pool, before)


def test_a_trade_that_the_store_lacks_keeps_its_row(pool, monkeypatch):
    trade_id = closed_trade(pool)
    run_that_dies(pool, monkeypatch)
    shard = pool.store.shard_of_trade(trade_id)
    pool.redis.hdel(pool.store.keys.records(shard, pool.store.keys.bucket_of(trade_id)), trade_id)
    for _ in range(2):
        with pytest.raises(errors.Corrupt, match=f"lacks trade {trade_id}"):
            pool.archive_closed_trades()
    assert archive_rows(pool) == [trade_id]


def test_history_that_was_added_within_the_retention_stays_with_its_key(pool):
    at = now_us() - 300 * DAY_US
    fills = [fill_fields(name, role, "1", "100", at=at) for name, role in (("a", "entry"), ("b", "exit"))]
    given = buy(created_at=at, idempotency_key="order-77", fills=fills)
    added = pool.add_trade(given)
    assert pool.get_trade(added.trade_id).status == "completed"
    assert pool.archive_closed_trades().archived == 0
    again = pool.add_trade(given)
    assert (again.outcome, again.trade_id) == ("duplicate", added.trade_id)


def test_a_clock_that_was_set_ahead_archives_nothing_before_its_time(pool, monkeypatch):
    closed_trade(pool, days_ago=5)
    assert pool.archive_closed_trades().archived == 0
    monkeypatch.setattr(pool._services.archiving, "_now_us", lambda: now_us() + 30 * DAY_US)
    for _ in range(2):
        assert pool.archive_closed_trades().archived == 0
    (archive_of(pool) / "clock").unlink()
    assert pool.archive_closed_trades().archived == 1, "whoever removes the file says that the clock is right"


def test_a_change_within_the_retention_keeps_a_trade(pool):
    trade_id = closed_trade(pool, days_ago=30)
    pool.update_trade(trade_id, strategy="renamed")
    assert pool.archive_closed_trades().archived == 0


@pytest.mark.parametrize("is_mounted_over", [False, True], ids=["gone", "an empty folder"])
def test_another_archive_does_not_take_the_place_of_one_that_is_gone(pool, tmp_path, is_mounted_over):
    closed_trade(pool)
    before = everything(pool)
    pool.archive_closed_trades()
    shutil.move(archive_of(pool), tmp_path / "elsewhere")
    if is_mounted_over:
        archive_of(pool).mkdir()
    young = closed_trade(pool, "bob")
    with pytest.raises(errors.ResourceUnavailable, match="no archive in"):
        pool.archive_closed_trades()
    with pytest.raises(errors.Misconfigured, match="no archive in"):
        pool.export(tmp_path / "all.jsonl")
    with pytest.raises(errors.Misconfigured, match="no archive in"):
        pool.sql("FROM trades")
    shutil.rmtree(archive_of(pool), ignore_errors=True)
    shutil.move(tmp_path / "elsewhere", archive_of(pool))
    assert pool.archive_closed_trades().archived == 1
    assert {trade.trade_id for trade in pool.get_all_trades()} == {*before["all"], young}


def test_an_export_and_a_query_refuse_to_leave_out_what_a_lost_day_or_part_had(pool, tmp_path):
    """It is not enough to count rows: others stand in their place."""
    for days_ago in (20, 30):
        closed_trade(pool, days_ago=days_ago)
        closed_trade(pool, "bob", days_ago=days_ago)
    oldest, _ = pool.archive_closed_trades().days
    (part,) = archive_of(pool).glob(f"day={oldest}/*.parquet")
    part.rename(tmp_path / "lost")
    copy = part.with_name("part-00009.parquet")
    shutil.copy(*archive_of(pool).glob("day=*/*.parquet"), copy)
    file = tmp_path / "all.jsonl"
    for ask in (
        lambda: pool.sql("FROM trades"),
        lambda: pool.export(file),
        lambda: pool.export(file, user_id="bob", status="completed"),
    ):
        with pytest.raises(errors.Corrupt, match=rf"not in .*archive, of {oldest} \([12]\); restore"):
            ask()
    assert not file.exists()
    since = now_us() - 25 * DAY_US
    assert pool.export(tmp_path / "newer.jsonl", since=since) == 2
    assert pool.export(tmp_path / "newer of bob.jsonl", since=since, user_id="bob") == 1
    assert pool.export(tmp_path / "open.jsonl", status="filled") == 0
    copy.unlink()
    (tmp_path / "lost").rename(part)
    assert len(pool.sql("FROM trades").rows) == pool.export(file) == 4


def test_a_summary_tells_what_an_archive_with_a_day_missing_lacks(pool):
    closed_trade(pool, days_ago=20)
    closed_trade(pool, days_ago=30)
    before = pool.get_user_summary("ann")
    days = pool.archive_closed_trades().days
    shutil.rmtree(archive_of(pool) / f"day={days[0]}")
    found = pool.get_user_summary("ann")
    assert (found.trade_count, found.pnl, found.archived_left_out) == (before.trade_count, before.pnl, 1)


def cancelled_trade(pool, days_ago):
    at = now_us() - days_ago * DAY_US
    trade_id = applied_at(pool, commanding.add_trade(buy(created_at=at)), at).trade_id
    applied_at(pool, commanding.update_trade(trade_id, {"status": "cancelled"}, expected_version=None), at)
    return trade_id


def test_a_list_leaves_out_what_a_trade_was_before_it_went_on_living(pool, monkeypatch):
    """A run has died and left a row of a trade that is no longer cancelled."""
    older = cancelled_trade(pool, 30)
    assert pool.archive_closed_trades().archived == 1
    trade_id = cancelled_trade(pool, 20)
    run_that_dies(pool, monkeypatch)
    applied_at(pool, commanding.add_fill(trade_id, entry("late")), now_us() - 19 * DAY_US)
    assert len(archive_rows(pool)) == 2
    for limit in (1, 2, 3):
        cancelled = pool.get_trades_by_user("ann", status="cancelled", limit=limit).trades
        assert [trade.trade_id for trade in cancelled] == [older]
        filled = pool.get_trades_by_symbol("BTC/USDT", status="filled", limit=limit).trades
        assert [trade.trade_id for trade in filled] == [trade_id]
    assert pool.archive_closed_trades().archived == 0
    assert archive_rows(pool) == [older]


def test_a_repeat_of_an_applied_command_is_a_duplicate_also_after_the_archive(pool):
    at = now_us() - 30 * DAY_US
    added = commanding.add_trade(buy(created_at=at))
    trade_id = applied_at(pool, added, at).trade_id
    filled = commanding.add_fill(trade_id, entry("f", at=at))
    closed = commanding.close_trade(trade_id, "110", fee=0, fee_currency=None, amount=None, at=at)
    for command in (filled, closed):
        assert applied_at(pool, command, at).outcome == "applied"
    assert pool.archive_closed_trades().archived == 1
    version = codec.read_header(record_of(pool, trade_id)).version
    for command in (filled, closed):
        receipt = applied_at(pool, command, at)
        assert (receipt.outcome, receipt.version) == ("duplicate", version)
    with pytest.raises(errors.IllegalTransition, match="archived"):
        pool.add_fill(trade_id, entry("another"))


def test_a_client_learns_that_its_command_was_applied_to_an_archived_trade(pool):
    trade_id = closed_trade(pool)
    command = commanding.update_trade(trade_id, {"strategy": "late"}, expected_version=None)
    applied_at(pool, command, now_us() - 20 * DAY_US)
    pool.archive_closed_trades()
    kept = SpoolEntry(1, command.command_id, "trades", trade_id, None)
    finished = Confirmation(pool.redis, pool.store).check({"trades": [Message(1, [kept])]})
    assert [(each.entry.command_id, each.rejection) for each in finished] == [(command.command_id, None)]
