"""From the outboxes of a real server into the journal, and the watermark back."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.pool_at_work import PoolAtWork
from tests.store_changes import change, new_trade
from tests.waiting import eventually
from tradepool.errors import Fenced, JournalAhead, JournalUnavailable, StoreUnavailable
from tradepool.files.reading import read_lines
from tradepool.journaling import writer
from tradepool.journaling.writer import JournalWriter
from tradepool.store import fence
from tradepool.store import watermark as watermarking
from tradepool.store.outbox import EPOCH_FIELD, Outbox
from tradepool.store.watermark import Watermark, parse_watermark


def watermark(pool: PoolAtWork, shard: int) -> tuple[str, str, int]:
    known = parse_watermark(pool.client.hget(pool.keys.journal, f"{shard:02x}"))
    return known.position, known.digest, known.count


def outbox_lengths(pool: PoolAtWork) -> list[int]:
    return [pool.client.xlen(pool.keys.outbox(shard)) for shard in range(pool.keys.shard_count)]


def test_a_commit_becomes_lines_a_watermark_and_an_empty_outbox(pool):
    trade = pool.add("ann")
    shard = pool.keys.shard_of_user("ann")
    assert pool.drain() == 2
    added, updated = read_lines(pool.log)
    assert [(line.record_id, line.version, line.index, line.task_id) for line in (added, updated)] == [
        (trade.trade_id, 1, 0, "task"),
        (trade.trade_id, 2, 0, ""),
    ]
    assert (added.previous, updated.previous) == ("", added.digest)
    assert updated.value == pool.store.read([(shard, trade.trade_id)])[0]
    assert watermark(pool, shard) == (pool.store.last_position(shard), updated.digest, 1)
    assert pool.notified == {shard: updated.position}
    assert outbox_lengths(pool) == [0, 0, 0, 0]


def test_every_change_of_a_batch_is_a_line_at_the_same_position(pool):
    shard = pool.keys.shard_of_user("ann")
    position = pool.store.commit(shard, [change(None, new_trade("ann")) for _ in range(200)])
    assert pool.drain() == 200
    assert [(line.position, line.index) for line in read_lines(pool.log)] == [
        (position, i) for i in range(200)
    ]


def test_the_journals_digests_are_the_stores(pool):
    pool.trade_a_while()
    pool.drain()
    for shard in range(pool.keys.shard_count):
        stored, journaled = pool.store.digest(shard), pool.journal.point.digest(shard)
        assert (stored.digest, stored.count) == (journaled.text, journaled.count)
        assert stored.position == pool.journal.point.position(shard)


def test_a_backlog_longer_than_one_read_is_one_group(pool, monkeypatch):
    monkeypatch.setattr(writer, "_ENTRIES_PER_READ", 3)
    for _ in range(10):
        pool.add("ann")
    assert pool.writer.step(block_ms=None) == 20
    assert pool.writer.step(block_ms=None) == 0


def test_a_group_ends_when_it_is_full(pool, monkeypatch):
    monkeypatch.setattr(writer, "_ENTRIES_PER_READ", 2)
    monkeypatch.setattr(writer, "_GROUP_LINES_MAX", 5)
    for _ in range(10):
        pool.add("ann")
    assert pool.writer.step(block_ms=None) == 6
    assert pool.drain() == 14


def test_a_waiting_call_returns_once_its_change_is_on_disk(pool):
    mark = Watermark(pool.client, pool.keys)
    pool.add("ann")
    shard = pool.keys.shard_of_user("ann")
    wanted = {shard: pool.store.last_position(shard)}
    with pytest.raises(JournalUnavailable):
        mark.wait(wanted, timeout_s=0.02)
    pool.drain()
    mark.wait(wanted, timeout_s=5)


def test_the_writer_wakes_who_waits_for_it(pool, monkeypatch):
    monkeypatch.setattr(watermarking, "_LISTEN_MS", 14_000)
    mark = Watermark(pool.client, pool.keys)
    pool.add("ann")
    shard = pool.keys.shard_of_user("ann")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(mark.wait, {shard: pool.store.last_position(shard)}, 10)
        eventually(lambda: mark._listener is not None)
        pool.drain()
        assert waiting.result(10) == pool.store.generation()


def test_what_is_published_leaves_the_outbox_with_the_next_look_or_with_the_next_owner(pool):
    pool.add("ann")
    pool.writer.step(block_ms=None)
    assert sum(outbox_lengths(pool)) == 2
    pool.writer.step(block_ms=None)
    assert sum(outbox_lengths(pool)) == 0
    pool.add("ann")
    pool.writer.step(block_ms=None)
    pool.writer.take_over()
    assert sum(outbox_lengths(pool)) == 0


def test_a_full_disk_confirms_nothing_and_passes(pool, monkeypatch):
    trade = pool.add("ann")

    def fail(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(JournalUnavailable):
        pool.drain()
    assert pool.notified == {}
    assert sum(outbox_lengths(pool)) == 2
    monkeypatch.undo()
    assert pool.drain() == 2
    assert [line.record_id for line in read_lines(pool.log)] == [trade.trade_id] * 2


def test_a_server_that_is_full_of_what_waits_for_the_journal_is_emptied_by_it(pool):
    """As after a long time without a disk: nobody else could free that memory."""
    pool.add("ann")
    pool.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            pool.add("bob")
        assert pool.drain() == 2
        assert sum(outbox_lengths(pool)) == 0
    finally:
        pool.client.config_set("maxmemory", 0)


def test_what_was_fsynced_but_not_published_is_published_next(pool, monkeypatch):
    shard = pool.keys.shard_of_user("ann")
    pool.add("ann")

    def fail(*_args):
        raise StoreUnavailable("away")

    monkeypatch.setattr(Outbox, "publish", fail)
    with pytest.raises(StoreUnavailable):
        pool.drain()
    monkeypatch.undo()
    assert pool.notified == {}
    assert pool.drain() == 0
    assert pool.notified == {shard: pool.store.last_position(shard)}
    assert watermark(pool, shard)[0] == pool.store.last_position(shard)
    assert sum(outbox_lengths(pool)) == 0
    assert len(list(read_lines(pool.log))) == 2


def test_an_idle_step_publishes_nothing(pool, monkeypatch):
    pool.add("ann")
    assert pool.writer.step(block_ms=None) == 2
    size = pool.log.stat().st_size
    monkeypatch.setattr(Outbox, "publish", None)
    assert pool.writer.step(block_ms=1) == 0
    assert pool.log.stat().st_size == size


def test_a_writer_whose_place_is_taken_publishes_nothing_more(pool):
    pool.add("ann")
    pool.drain()
    before = pool.client.hgetall(pool.keys.journal)
    JournalWriter(pool.client, pool.keys, pool.journal).take_over()
    pool.notified.clear()
    pool.add("ann")
    with pytest.raises(Fenced, match="taken over"):
        pool.drain()
    after = pool.client.hgetall(pool.keys.journal)
    assert after.pop(EPOCH_FIELD.encode()) != before.pop(EPOCH_FIELD.encode())
    assert (after, pool.notified) == (before, {})


def test_a_place_that_is_lost_after_the_outboxes_were_read_moves_no_watermark(pool):
    shard = pool.keys.shard_of_user("ann")
    outbox = Outbox(pool.client, pool.keys)
    outbox.take_over()
    position = pool.store.commit(shard, [change(None, new_trade("ann"))])
    assert outbox.read({}, 10, None)
    pool.writer.take_over()
    before = pool.client.hgetall(pool.keys.journal), pool.client.xrange(pool.keys.journal_bell)
    with pytest.raises(Fenced, match="taken over"):
        outbox.publish({shard: f"{position} {'0' * 16} 1"}, {shard: position})
    outbox.trim()
    assert before == (pool.client.hgetall(pool.keys.journal), pool.client.xrange(pool.keys.journal_bell))
    assert sum(outbox_lengths(pool)) == 1


def test_epochs_differ_even_when_the_server_has_gone_back_in_time(pool):
    old = pool.client.hget(pool.keys.journal, EPOCH_FIELD)
    pool.client.hdel(pool.keys.journal, EPOCH_FIELD)
    pool.writer.take_over()
    new = pool.client.hget(pool.keys.journal, EPOCH_FIELD)
    assert (old.split()[0], new.split()[0]) == (b"1", b"1")
    assert old != new


def test_a_writer_without_a_place_writes_nothing(redis_client, settings):
    pool = PoolAtWork(redis_client, settings)
    with pool.journal, pytest.raises(Fenced, match="take_over"):
        pool.writer.step()


def test_taking_over_publishes_what_the_last_writer_could_not(pool):
    pool.add("ann")
    pool.drain()
    pool.client.hdel(pool.keys.journal, *(f"{shard:02x}" for shard in range(4)))
    pool.notified.clear()
    pool.writer.take_over()
    shard = pool.keys.shard_of_user("ann")
    assert watermark(pool, shard)[0] == pool.store.last_position(shard) == pool.notified[shard]


class Running:
    """The pool's writer in a thread, as a process runs it."""

    def __init__(self, pool: PoolAtWork) -> None:
        self.recoveries = 0
        self.failure: Exception | None = None
        self.pool = pool
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _recover(self) -> None:
        self.pool.recover()
        self.recoveries += 1

    def _run(self) -> None:
        try:
            self.pool.writer.run(self._stop, self._recover)
        except (Fenced, JournalAhead) as failure:
            self.failure = failure

    def wait_open(self) -> None:
        """Until writers are let in and this one has its place."""
        client, hash_key = self.pool.client, self.pool.keys.journal
        deadline = time.monotonic() + 10
        while not (fence.is_open(client) and client.hexists(hash_key, EPOCH_FIELD)):
            assert time.monotonic() < deadline
            self._stop.wait(0.005)

    def wait_journaled(self) -> None:
        pool = self.pool
        wanted = dict(enumerate(pool.store.last_positions()))
        Watermark(pool.client, pool.keys).wait({s: p for s, p in wanted.items() if p != "0-0"}, timeout_s=10)

    def wait_ended(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self.wait_ended()


@pytest.fixture
def running(redis_client, settings):
    pool = PoolAtWork(redis_client, settings)
    running = Running(pool)
    yield running
    running.stop()
    pool.journal.close()


def test_a_running_writer_recovers_a_server_that_lost_everything(running):
    pool = running.pool
    running.wait_open()
    trade = pool.add("ann")
    running.wait_journaled()
    pool.lose_everything()
    running.wait_open()
    assert pool.store.read([(pool.keys.shard_of_user("ann"), trade.trade_id)])[0] is not None
    pool.add("bob")
    running.wait_journaled()
    assert running.recoveries == 2


def test_a_server_that_restarts_while_its_writer_takes_over_does_not_end_the_writer(running, monkeypatch):
    pool, take, losses = running.pool, Outbox.take_over, []
    running.wait_open()
    pool.add("ann")
    running.wait_journaled()

    def loses_it_once(outbox):
        take(outbox)
        if not losses:
            # What a restart leaves that has lost the last second.
            losses.append(pool.client.hdel(pool.keys.journal, EPOCH_FIELD))
            pool.client.script_flush()

    monkeypatch.setattr(Outbox, "take_over", loses_it_once)
    pool.client.script_flush()
    eventually(lambda: losses)
    running.wait_open()
    pool.add("ann")
    running.wait_journaled()
    assert running.failure is None


def test_a_running_writer_stops_when_another_one_takes_over(running):
    pool = running.pool
    running.wait_open()
    JournalWriter(pool.client, pool.keys, pool.journal).take_over()
    pool.add("ann")
    running.wait_ended()
    assert isinstance(running.failure, Fenced)


def test_a_running_writer_refills_a_store_that_was_emptied(running):
    pool = running.pool
    running.wait_open()
    trade = pool.add("ann")
    running.wait_journaled()
    pool.client.flushall()
    running.wait_open()
    assert pool.store.read([(pool.keys.shard_of_user("ann"), trade.trade_id)])[0] is not None


def test_a_stopped_writer_journals_what_is_left(pool):
    stop = threading.Event()
    pool.add("ann")
    stop.set()
    pool.writer.run(stop, pool.recover)
    assert len(list(read_lines(pool.log))) == 2
