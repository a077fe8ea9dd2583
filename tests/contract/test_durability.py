"""`Receipt.durable` tells the truth: set once the change is fsynced, and never before."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.loose_trades import buy, entry
from tests.waiting import eventually
from tradepool import TradePool, errors
from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.reading import read_lines

WAIT_S = 20.0


class Disk:
    """Every fsync of the log by this process: held up or failing when told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self.log = log
        self.synced = b""
        """What the log held when its last successful fsync began."""
        self.asked = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.problem: OSError | None = None
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._slow(getattr(os, name)))

    def _slow(self, sync):
        def slow_sync(descriptor):
            if not self.log.exists() or not os.path.samestat(os.fstat(descriptor), self.log.stat()):
                sync(descriptor)
                return
            content = self.log.read_bytes()
            self.asked.set()
            assert self.may_go_on.wait(WAIT_S)
            if self.problem is not None:
                raise self.problem
            sync(descriptor)
            self.synced = content

        return slow_sync

    def hold(self) -> None:
        self.asked.clear()
        self.may_go_on.clear()


@pytest.fixture
def disk(monkeypatch, tmp_path):
    disk = Disk(monkeypatch, tmp_path / "pool" / JOURNAL_NAME)
    yield disk
    disk.may_go_on.set()
    disk.problem = None


def embedded(tmp_path, **settings):
    return TradePool.embedded(tmp_path / "pool", shard_count=4, **settings)


def journaled(pool):
    """Return once the journal has everything."""
    eventually(lambda: not any(pool.store.outbox_lengths()))


def everything_written(pool):
    """One receipt of each kind of write."""
    trade_id = pool.add_trade(buy(amount="2")).trade_id
    yield pool.add_trade(buy(trade_id="trade:1"))
    yield pool.add_trade(buy(trade_id="trade:1"))
    yield pool.add_fill(trade_id, entry("f1", amount="2"))
    yield pool.update_trade(trade_id, stop_loss="90")
    yield pool.close_trade(trade_id, "110")
    yield pool.update_trade_pnl(trade_id, "1", as_of=1_700_000_000_000_001)
    yield pool.update_trade_pnl(trade_id, "2", as_of=1_700_000_000_000_000)
    yield pool.update_available_tokens("ann", {"USDT": 1})
    yield from pool.add_trades([buy(), buy()])


def test_with_the_journal_every_receipt_is_durable(tmp_path):
    with embedded(tmp_path) as pool:
        receipts = list(everything_written(pool))
    assert {receipt.outcome for receipt in receipts} == {"applied", "duplicate", "stale"}
    assert all(receipt.durable for receipt in receipts)


def test_with_redis_alone_no_receipt_says_that_it_is_durable(tmp_path):
    with embedded(tmp_path, durability="redis") as pool:
        receipts = list(everything_written(pool))
    assert not any(receipt.durable for receipt in receipts)


def test_what_redis_alone_accepted_is_in_the_journal_by_and_by(tmp_path):
    with embedded(tmp_path, durability="redis") as pool:
        trade_id = pool.add_trade(buy()).trade_id
    assert [line.record_id for line in read_lines(tmp_path / "pool" / JOURNAL_NAME)] == [trade_id]


def test_what_a_durable_receipt_is_about_was_in_the_log_when_its_fsync_began(tmp_path, disk):
    with embedded(tmp_path) as pool:
        for number in range(3):
            receipt = pool.add_trade(buy(trade_id=f"trade:{number}"))
            assert b'"trade:%d"' % number in disk.synced
            assert receipt.durable
        pool.close_trade(pool.add_trade(buy(status="filled")).trade_id, "123.456")
        assert b'"123.456"' in disk.synced


@pytest.mark.parametrize(("durability", "returns"), [("journal", False), ("redis", True)])
def test_nobody_hears_durable_before_the_disk_has_it(tmp_path, disk, durability, returns):
    with embedded(tmp_path, durability=durability) as pool, ThreadPoolExecutor(1) as bot:
        pool.add_trade(buy(trade_id="before"))
        journaled(pool)
        disk.hold()
        call = bot.submit(pool.add_trade, buy(trade_id="trade:1"))
        assert disk.asked.wait(WAIT_S)
        assert b'"trade:1"' not in disk.synced
        if returns:
            assert not call.result(WAIT_S).durable
        # The change can be read, and the journal is at its fsync: whoever waits is still waiting.
        assert pool.get_trade("trade:1").version == 1
        assert call.done() is returns
        disk.may_go_on.set()
        assert call.result(WAIT_S).durable is not returns


def test_a_duplicate_waits_for_the_fsync_of_what_it_repeats(tmp_path, disk):
    with embedded(tmp_path) as pool, ThreadPoolExecutor(2) as bots:
        pool.add_trade(buy(trade_id="before"))
        disk.hold()
        first = bots.submit(pool.add_trade, buy(trade_id="trade:1"))
        assert disk.asked.wait(WAIT_S)
        again = bots.submit(pool.add_trade, buy(trade_id="trade:1"))
        with pytest.raises(TimeoutError):
            again.result(0.1)
        disk.may_go_on.set()
        assert (first.result(WAIT_S).durable, again.result(WAIT_S).durable) == (True, True)
        assert {first.result().outcome, again.result().outcome} == {"applied", "duplicate"}


def test_a_failing_disk_acknowledges_nothing_and_the_repeat_is_durable(tmp_path, disk):
    with embedded(tmp_path, journal_wait_s=0.5) as pool:
        disk.problem = OSError(errno.EIO, "the disk is failing")
        with pytest.raises(errors.JournalUnavailable):
            pool.add_trade(buy(trade_id="trade:1"))
        disk.problem = None
        receipt = added_again(pool, buy(trade_id="trade:1"))
        assert (receipt.outcome, receipt.durable) == ("duplicate", True)
        assert pool.check_all_trades(deep=True).ok


def added_again(pool, trade):
    """The receipt of the first attempt that the disk lets through."""
    receipts = []

    def attempt():
        with contextlib.suppress(errors.JournalUnavailable):
            receipts.append(pool.add_trade(trade))
        return receipts

    eventually(attempt)
    return receipts[0]
