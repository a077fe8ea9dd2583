"""A server that comes back without its newest commits must not have them acknowledged."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.loose_trades import buy
from tests.lossy_wire import LossyWire
from tests.pool_at_work import at_work, image_of
from tests.waiting import eventually
from tradepool.client.confirmation import Confirmation
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry
from tradepool.core import TradeCore
from tradepool.errors import Fenced, JournalUnavailable
from tradepool.model.commands import AddTrade
from tradepool.model.ids import slot_of_user
from tradepool.settings import Durability
from tradepool.snapshots import write_snapshot
from tradepool.store.fence import open_fence
from tradepool.store.watermark import Watermark


@pytest.fixture
def pool(redis_client, settings):
    redis_client.script_flush()
    redis_client.flushall()
    with at_work(redis_client, settings) as running:
        yield running


def add(trade_id):
    return AddTrade(command_id=f"add {trade_id}", as_of=1_700_000_000_000_000, trade=buy(trade_id=trade_id))


def test_a_commit_that_a_crash_took_is_not_acknowledged_on_later_positions(pool):
    core = TradeCore(pool.store, Watermark(pool.client, pool.keys), pool.settings)
    before = image_of(pool.client)
    refusals = []

    def add_and_wait():
        try:
            core.apply([add("lost")])
        except JournalUnavailable as refusal:
            refusals.append(str(refusal))

    waiting = threading.Thread(target=add_and_wait)
    waiting.start()
    eventually(lambda: any(pool.store.outbox_lengths()))
    pool.come_back_as(before)
    pool.begin()
    pool.add("ann", trade_id="later")
    pool.drain()
    waiting.join()

    assert refusals == ["the server was recovered before the journal had everything; try the same again"]
    assert pool.store.read([(pool.keys.shard_of_user("ann"), "lost")]) == [None]


def test_a_process_that_slept_through_a_recovery_goes_on_with_its_first_call(pool):
    loose = pool.settings.model_copy(update={"durability": Durability.REDIS})
    core = TradeCore(pool.store, Watermark(pool.client, pool.keys), loose)
    for number in range(2):
        (added,) = core.apply([add(f"t{number}")])
        assert added.outcome == "applied"
        open_fence(pool.client)
    pool.drain()

    core = TradeCore(pool.store, Watermark(pool.client, pool.keys), pool.settings)
    (repeated,) = core.apply([add("t0")])
    assert (repeated.outcome, repeated.durable) == ("duplicate", True)


def test_a_snapshot_across_a_recovery_is_not_kept(pool, monkeypatch):
    pool.trade_a_while()
    pool.drain()
    scan = pool.store.scan_records

    def scan_then_recover(shard):
        yield from scan(shard)
        open_fence(pool.client)

    monkeypatch.setattr(pool.store, "scan_records", scan_then_recover)

    with pytest.raises(JournalUnavailable, match="was recovered before"):
        write_snapshot(pool.store, pool.journal, pool.settings.data_dir)
    assert not (pool.settings.data_dir / "trades.json").exists()


def test_a_client_confirms_nothing_across_a_recovery(pool, monkeypatch):
    trade_id = pool.add("ann").trade_id
    pool.drain()
    assert Confirmation(pool.client, pool.store).is_journaled([trade_id]) == {trade_id: True}
    read = pool.store.read

    def read_then_recover(records):
        values = read(records)
        open_fence(pool.client)
        return values

    monkeypatch.setattr(pool.store, "read", read_then_recover)

    confirmation = Confirmation(pool.client, pool.store)
    assert confirmation.is_journaled([trade_id]) == {trade_id: False}
    monkeypatch.undo()
    assert confirmation.is_journaled([trade_id]) == {trade_id: True}


@pytest.fixture
def lost(pool):
    """A server that has applied a command; calling it takes the command back, before any recovery."""
    pool.add("ann")
    pool.drain()
    pool.store.put_routes({"lost": slot_of_user("ann")})
    before = image_of(pool.client)
    loose = pool.settings.model_copy(update={"durability": Durability.REDIS})
    TradeCore(pool.store, Watermark(pool.client, pool.keys), loose).apply([add("lost")])
    return lambda: pool.come_back_as(before)


def crashing_before(monkeypatch, pool, method, crash):
    real, crashes = getattr(pool.store, method), iter([crash])

    def crash_once(*arguments):
        next(crashes, lambda: None)()
        return real(*arguments)

    monkeypatch.setattr(pool.store, method, crash_once)


def test_a_repeat_is_not_acknowledged_by_a_server_that_waits_for_recovery(pool, lost, monkeypatch):
    crashing_before(monkeypatch, pool, "positions", lost)
    core = TradeCore(pool.store, Watermark(pool.client, pool.keys), pool.settings)

    with pytest.raises(Fenced):
        core.apply([add("lost")])


def test_a_commit_that_was_sent_again_is_not_acknowledged_by_a_server_that_lost_it_since(pool, monkeypatch):
    pool.add("ann")
    pool.drain()
    pool.store.put_routes({"lost": slot_of_user("ann")})
    before = image_of(pool.client)
    wire = LossyWire(monkeypatch)
    core = TradeCore(pool.store, Watermark(pool.client, pool.keys), pool.settings)
    crashing_before(monkeypatch, pool, "positions", lambda: pool.come_back_as(before))

    wire.lose("answer lost")
    with pytest.raises(Fenced):
        core.apply([add("lost")])


def test_a_snapshot_on_a_server_that_waits_for_recovery_is_not_kept(pool, lost, monkeypatch):
    crashing_before(monkeypatch, pool, "last_positions", lost)

    with pytest.raises(Fenced):
        write_snapshot(pool.store, pool.journal, pool.settings.data_dir, wait_s=1)
    assert not (pool.settings.data_dir / "trades.json").exists()


def test_a_client_finishes_nothing_on_a_server_that_waits_for_recovery(pool, lost, monkeypatch):
    crashing_before(monkeypatch, pool, "positions", lost)
    confirmation = Confirmation(pool.client, pool.store)
    under_way = {"trades": [Message(1, [SpoolEntry(1, "add lost", "trades", "lost", "ann")])]}

    with contextlib.suppress(Fenced):
        assert confirmation.check(under_way) == []
    pool.begin()
    assert confirmation.check(under_way) == []
