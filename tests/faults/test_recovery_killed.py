"""A recovery that is killed, with all its processes, is repeated by the next one and leaves no trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.journaled_trades import counters_of, user_of, write_trades
from tests.pool_at_work import PoolAtWork, contents
from tests.waiting import eventually
from tradepool.errors import StoreUnavailable
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.journaling import refilling
from tradepool.settings import Settings
from tradepool.store.keys import Keys

TRADES = 10_000
RECOVER = """
import os, sys
from pathlib import Path
from tradepool.journaling import refilling
from tradepool.files.journal import JOURNAL_NAME, Journal
from tradepool.journaling.recovery import recover
from tradepool.settings import Settings
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
refilling._RECORDS_PER_PROCESS_MIN = int(sys.argv[3])
os.cpu_count = lambda: 2
settings = Settings(redis_url=sys.argv[1], data_dir=Path(sys.argv[2]), shard_count=4)
with Journal(settings.data_dir / JOURNAL_NAME, 4) as journal:
    recover(connect(settings), Keys(4), journal, settings)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a journal of many trades."""
    folder = tmp_path_factory.mktemp("pool")
    with Journal(folder / JOURNAL_NAME, 4) as journal:
        write_trades(journal, Keys(4), TRADES, archived_every=10)
    return folder


@pytest.fixture
def pool(redis_client, server, folder):
    pool = PoolAtWork(redis_client, Settings(redis_url=server.url, data_dir=folder, shard_count=4))
    pool.lose_everything()
    yield pool
    pool.journal.close()


def killed_recovery(pool: PoolAtWork, records_per_process: int, progress: float) -> None:
    """Recover in another process and kill it when that part of the records is there."""
    pool.journal.close()
    where = [pool.settings.redis_url, pool.settings.data_dir, str(records_per_process)]
    process = subprocess.Popen([sys.executable, "-c", RECOVER, *where], cwd=Path(__file__).parents[2])
    eventually(lambda: records(pool) > progress * TRADES or process.poll() is not None, 60)
    family = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    eventually(lambda: not any(child.is_running() for child in family))


def records(pool: PoolAtWork) -> int:
    pipeline = pool.client.pipeline(transaction=False)
    for shard in range(4):
        for bucket in range(16):
            pipeline.hlen(pool.keys.records(shard, bucket))
    return sum(pipeline.execute())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("records_per_process", [TRADES, TRADES // 2])
def test_a_recovery_killed_again_and_again_ends_as_if_it_never_had_been(pool, records_per_process):
    for progress in (0, 0.3, 0.7):
        killed_recovery(pool, records_per_process, progress)
    again = PoolAtWork(pool.client, pool.settings)
    with again.journal as journal:
        assert records(pool) < TRADES
        again.recover()
        found = contents(pool)
        for user_id in map(user_of, range(10)):
            assert pool.store.counters(user_id) == counters_of(TRADES, user_id, archived_every=10)
        pool.lose_everything()
        again.recover()
        assert contents(pool) == found
        for shard in range(4):
            assert pool.store.digest(shard).digest == journal.point.digest(shard).text


def test_two_processes_leave_what_one_leaves(pool, monkeypatch):
    assert pool.recover().processes == 1
    before = contents(pool)
    pool.lose_everything()
    monkeypatch.setattr(refilling, "_RECORDS_PER_PROCESS_MIN", TRADES // 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert pool.recover().processes == 2
    assert contents(pool) == before


def test_a_process_that_ends_without_an_answer_is_an_outage(pool, monkeypatch):
    monkeypatch.setattr(refilling, "_RECORDS_PER_PROCESS_MIN", TRADES // 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(refilling, "_SERVE", "import sys; sys.stdin.buffer.read(100)")
    with pytest.raises(StoreUnavailable, match="recovery begins again"):
        pool.recover()
    monkeypatch.undo()
    assert pool.recover().opened


def test_what_a_process_finds_wrong_is_said_by_the_recovery(pool, monkeypatch):
    monkeypatch.setattr(refilling, "_RECORDS_PER_PROCESS_MIN", TRADES // 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    pool.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="memory"):
            pool.recover()
    finally:
        pool.client.config_set("maxmemory", "0")
