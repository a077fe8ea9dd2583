"""Archiving that ends between two of its steps, and archiving under everybody's hands."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from tests.archive_steps import KILLED, PART_TRADES, ROUND_TRIP, SHARD_COUNT, STEPS, stop_at
from tests.archived_trades import USERS, archive_rows, changed, closed_trade, everything, pages, some_of_each
from tradepool import TradePool, archiving, errors

QUICK = ("while the lines are written", "after a part is written", "after the first commit")


class Died(BaseException):
    """What no code of ours catches, as a killed process runs no code of ours."""


def opened(tmp_path):
    return TradePool.embedded(tmp_path / "pool", shard_count=SHARD_COUNT)


@pytest.fixture
def pool(server_binary, tmp_path, monkeypatch):
    monkeypatch.setattr(archiving, "PART_TRADES_MAX", PART_TRADES)
    monkeypatch.setattr(archiving, "ROUND_TRIP_MAX", ROUND_TRIP)
    with opened(tmp_path) as pool:
        yield pool


def assert_whole(pool, before, old):
    """Nothing missing or double: right now, and after the next run, which leaves no trade's row twice."""
    assert everything(pool) == before
    assert pool.check_all_trades(deep=True).findings == ()
    pool.archive_closed_trades()
    assert everything(pool) == before
    assert sorted(archive_rows(pool)) == sorted(old)
    assert pool.archive_closed_trades().archived == 0
    report = pool.check_all_trades(deep=True)
    assert (report.findings, report.undecided) == ((), ())


def end_a_run_at(name, pool, monkeypatch):
    """Archive what is due, up to the step of that name."""

    def die():
        raise Died

    with monkeypatch.context() as broken:
        stop_at(STEPS[name], die, broken.setattr)
        with pytest.raises(Died):
            pool.archive_closed_trades()


def one_day(pool):
    return [closed_trade(pool, user_id, days_ago=20) for user_id in USERS for _ in range(3)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STEPS]
)
def test_a_run_that_ends_between_two_steps_loses_and_doubles_nothing(pool, monkeypatch, name):
    old = one_day(pool)
    before = everything(pool)
    end_a_run_at(name, pool, monkeypatch)
    assert_whole(pool, before, old)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_process_killed_between_two_steps_loses_and_doubles_nothing(server_binary, tmp_path, name):
    with opened(tmp_path) as pool:
        old = [*some_of_each(pool), *one_day(pool)]
        before = everything(pool)
    command = [sys.executable, "-m", "tests.archive_steps", str(tmp_path / "pool"), name]
    ended = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert ended.returncode == KILLED, ended.stderr
    with opened(tmp_path) as pool:
        assert_whole(pool, before, old)


def test_a_trade_that_changes_after_the_crash_is_archived_in_its_new_version_only(pool, monkeypatch):
    """The left-over row is of a version that never was archived: it goes before the new one comes."""
    trade_id = closed_trade(pool)
    end_a_run_at("after a part is written", pool, monkeypatch)
    changed(pool, trade_id)
    before = everything(pool)
    assert [trade.strategy for trade in before["users"]["ann"]] == ["late"]
    assert_whole(pool, before, [trade_id])
    assert pool.get_trade(trade_id).strategy == "late"


@pytest.mark.parametrize(
    "name", ["after a part's checksum is written", "before a part's checksum is settled"]
)
def test_a_run_that_ends_while_rows_are_dropped_accuses_no_part(pool, monkeypatch, name):
    """The part is about to be another one, or just is: its checksum vouches for both until the next run."""
    trade_id = closed_trade(pool)
    kept = closed_trade(pool)
    end_a_run_at("after a part is written", pool, monkeypatch)
    changed(pool, trade_id)
    before = everything(pool)
    end_a_run_at(name, pool, monkeypatch)
    report = pool.check_all_trades(deep=True)
    assert (report.findings, report.undecided) == ((), ())
    assert_whole(pool, before, [trade_id, kept])
    seals = (pool.settings.data_dir / "archive").glob("day=*/*.sha256")
    assert [seal.read_text().count("\n") for seal in seals] == [1, 1]


def test_a_commit_whose_answer_is_lost_is_settled_by_the_next_run(pool, monkeypatch):
    old = one_day(pool)
    before = everything(pool)
    commit = pool.store.commit_all

    def lose_the_answer(changes):
        commit(changes)
        raise errors.StoreUnavailable("the connection broke")

    with monkeypatch.context() as broken:
        broken.setattr(pool.store, "commit_all", lose_the_answer)
        with pytest.raises(errors.StoreUnavailable):
            pool.archive_closed_trades()
    assert_whole(pool, before, old)


def test_a_part_is_unsettled_until_the_journal_has_its_trades(pool, monkeypatch):
    """A server that loses the commits brings the trades back to life, under rows already in the archive."""
    old = one_day(pool)
    before = everything(pool)

    def never(*_args):
        raise errors.JournalUnavailable("no watermark")

    with monkeypatch.context() as broken:
        broken.setattr(pool._services.archiving._watermark, "wait", never)
        with pytest.raises(errors.JournalUnavailable):
            pool.archive_closed_trades()
    assert (pool.settings.data_dir / "archive" / "unsettled").is_file()
    assert_whole(pool, before, old)


def looks_at(pool, export):
    """Ways to ask a pool for all its trades: each returns their ids."""

    def exported():
        pool.export(export, force=True)
        return [json.loads(line)["trade_id"] for line in export.read_text().splitlines()]

    def of_users():
        return ids(chain.from_iterable(pages(pool.get_trades_by_user, user, limit=5) for user in USERS))

    return [
        lambda: ids(pool.get_all_trades()),
        lambda: [row[0] for row in pool.sql("SELECT trade_id FROM trades").rows],
        lambda: ids(pages(pool.get_trades_by_symbol, "BTC/USDT", limit=7)),
        of_users,
        exported,
    ]


def ids(trades):
    return [trade.trade_id for trade in trades]


def watch(look, expected, ended):
    """Look again and again, at least once after the end; the first thing that was wrong."""
    while True:
        is_last = ended.is_set()
        counted = Counter(look())
        doubled = [trade_id for trade_id, times in counted.items() if times > 1]
        if doubled or set(expected) - counted.keys():
            return f"{look}: {doubled} twice, {set(expected) - counted.keys()} missing"
        if is_last:
            return None


@pytest.mark.slow
def test_readers_miss_nothing_and_see_nothing_twice_while_trades_move(pool, tmp_path):
    """Readers, bots and the archiver at once, on a real server: each look is whole in itself."""
    old = [closed_trade(pool, USERS[number % 2], days_ago=40 - number) for number in range(24)]
    won = {user: pool.get_user_summary(user).wins for user in USERS}
    looks = looks_at(pool, tmp_path / "all.jsonl")
    looks += [
        lambda: ids(pool.get_trade(trade_id) for trade_id in old),
        lambda: old if all(pool.get_user_summary(user).wins >= won[user] for user in USERS) else [],
    ]
    ended = threading.Event()
    with ThreadPoolExecutor(len(looks)) as threads:
        watched = [threads.submit(watch, look, old, ended) for look in looks]
        try:
            for number in range(6):
                closed_trade(pool, USERS[number % 2], days_ago=10)
                pool.archive_closed_trades()
        finally:
            ended.set()
        assert [future.result() for future in watched] == [None] * len(looks)
    assert len(archive_rows(pool)) == 30
    assert pool.check_all_trades(deep=True).findings == ()
