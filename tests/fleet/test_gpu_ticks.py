"""What a tick goes through before it is marked, on a real queue and in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace

import pytest
import structlog
from celery.exceptions import Reject

from tasks import ticks
from tasks.app import PoolApp, app
from tasks.beat import TICKS_WAITING_MAX, TickScheduler
from tasks.config import celery_settings
from tasks.pnl import mark_to_market, stress_test
from tasks.ticks import PASSED_ON_MAX, TickTask, other_queues
from tests.loose_trades import buy
from tests.waiting import eventually
from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.pool import TradePool
from tradepool.settings import Durability, Settings

START_US = 1_750_000_000_000_000
PRICES = {"BTC/USDT": "100"}

Send = Callable[[int], str]


@pytest.fixture
def own_settings(settings: Settings, redis_client, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of this process as the worker of the first of two devices."""
    own = settings.model_copy(
        update={"pnl_devices": 2, "pnl_device": 0, "durability": Durability.REDIS, "visibility_timeout_s": 1}
    )
    monkeypatch.setattr(app, "settings", own)
    return own


@pytest.fixture
def task(own_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TickTask]:
    """The task as a worker has it; what it sends goes to the queues of this broker."""
    app.loader.import_default_modules()
    tick: TickTask = app.tasks["tasks.pnl.mark_to_market"]
    before = dict(tick.__dict__)
    tick.__init__()
    tick.__dict__.pop("_queued", None)
    sender = ChangeSender(own_settings)

    def apply_async(**options: object) -> None:
        assert options.pop("retry") is False
        assert options.pop("headers") == {"passed_on": True}
        sender.call(options.pop("queue"), tick.name, [], **options)

    monkeypatch.setattr(tick, "apply_async", apply_async)
    yield tick
    sender.close()
    app.disconnect_pool()
    tick.__dict__.pop("_queued", None)
    tick.__dict__.update(before)


@contextmanager
def running(task: TickTask, task_id: str = "running", **about: object) -> Iterator[None]:
    """The task runs a message that it has taken from `gpu`."""
    delivery = {"routing_key": "gpu", "redelivered": about.pop("redelivered", False)}
    task.push_request(id=task_id, delivery_info=delivery, called_directly=False, **about)
    try:
        yield
    finally:
        task.pop_request()


@pytest.fixture
def send(own_settings: Settings) -> Iterator[Send]:
    with ChangeSender(own_settings) as sender:
        yield lambda number: sender.call("gpu", mark_to_market.name, [PRICES, START_US + number])


def queued(task: TickTask, queue: str) -> list[dict[str, object]]:
    """The messages on a queue, oldest first."""
    raw = TradePool(app.services).redis.lrange(queue, 0, -1)
    return [wire.decode(one) for one in reversed(raw)]


def test_older_ticks_are_stale_once_a_newer_one_was_marked(task: TickTask, send: Send):
    older = send(1)
    with running(task):
        assert task.run(PRICES, START_US + 5)["outcome"] == "marked"
    app.services.client.delete("gpu")
    with running(task, older):
        assert task.is_stale(START_US + 1)


def test_the_newest_tick_is_marked_in_between_when_all_are_stale(
    task: TickTask, send: Send, monkeypatch: pytest.MonkeyPatch
):
    send(2)
    send(3)
    with running(task):
        assert task.is_stale(START_US + 1)
        assert task.jump_ahead() is None
        monkeypatch.setattr(ticks, "BEHIND_MAX_S", 0.0)
        assert task.jump_ahead()["at"] == START_US + 3
        assert task.run(PRICES, START_US + 1) == {"outcome": "stale"}
    assert app.services.marking.get_totals() is None
    assert [message["headers"]["id"] for message in queued(task, "gpu.1")] == ["running-gpu.1"]


def test_a_tick_of_a_time_of_which_newer_marks_stand_is_stale(task: TickTask):
    pool = TradePool(app.services)
    pool.add_trade(buy(status="filled"))
    marking = app.services.marking
    with TradePool.connect(app.settings.model_copy(update={"pnl_device": None})) as whole:
        whole.mark_to_market(PRICES, at=START_US + 5)
    assert marking.get_totals()["at"] == START_US + 5
    for redelivered in (True, False):
        with running(task, redelivered=redelivered, sent_at=START_US + 4):
            assert task.is_stale(START_US + 4)
            assert not task.is_stale(START_US + 5)
            # Without a time of its own it is of now, unless it has been taken before.
            assert task.is_stale(None) is redelivered


@pytest.mark.parametrize("reason", ["stopping", "expired", "too long"])
def test_a_tick_that_waits_for_the_book_goes_back_to_the_queue(
    task: TickTask, monkeypatch: pytest.MonkeyPatch, reason: str
):
    monkeypatch.setattr(ticks, "LOOK_EVERY_S", 0.001)
    looks = count()
    # A tick that waits on although it should not is marked in the end.
    monkeypatch.setattr(app, "book_keeper", SimpleNamespace(wait_tried=lambda _timeout_s: next(looks) > 100))
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    monkeypatch.setattr(ticks, "WAIT_SHARE", 0.0 if reason == "too long" else 1e6)
    if reason == "stopping":
        app.stopping.set()
    try:
        with (
            running(task, expires=past if reason == "expired" else None),
            pytest.raises(Reject, match="built"),
        ):
            task.is_stale(START_US)
    finally:
        app.stopping.clear()


def test_a_tick_may_have_become_stale_while_the_book_was_built(
    task: TickTask, send: Send, monkeypatch: pytest.MonkeyPatch
):
    looks: list[float] = []

    def wait_tried(timeout_s: float) -> bool:
        looks.append(timeout_s)
        if len(looks) == 2:
            send(2)
        return len(looks) > 1

    monkeypatch.setattr(app, "book_keeper", SimpleNamespace(wait_tried=wait_tried))
    with running(task):
        assert task.is_stale(START_US + 1)


def test_a_tick_is_passed_on_once_with_the_prices_that_were_found(task: TickTask):
    pool = TradePool(app.services)
    pool.set_prices({"BTC/USDT": "107.5"}, at=START_US)
    with running(task):
        assert task.run(None, START_US)["outcome"] == "marked"
    assert [message["headers"]["id"] for message in queued(task, "gpu.1")] == ["running-gpu.1"]
    tick = task._queued.newest("gpu.1")
    assert tick.arguments == {"prices": {"BTC/USDT": "107.5"}, "at": START_US, "stale": {}}
    with running(task, passed_on=True):
        assert other_queues(task) == ()


def test_a_device_that_is_away_does_not_fill_the_broker(task: TickTask):
    tick = app.services.marking.tick(PRICES, at=START_US)
    with structlog.testing.capture_logs() as logs:
        for number in range(PASSED_ON_MAX + 3):
            with running(task, f"tick-{number}"):
                task.pass_on(tick)
    assert len(queued(task, "gpu.1")) == PASSED_ON_MAX
    assert [line["event"] for line in logs] == ["ticks are not passed on"]
    app.services.client.delete("gpu.1")
    with structlog.testing.capture_logs() as logs, running(task, "next"):
        task.pass_on(tick)
    assert [line["event"] for line in logs] == ["works again"]
    eventually(lambda: len(queued(task, "gpu.1")) == 1)


def test_a_call_in_this_process_marks_and_is_passed_to_nobody(task: TickTask):
    TradePool(app.services).add_trade(buy(status="filled", user_id="ann"))
    assert mark_to_market({"BTC/USDT": "110"}, START_US)["outcome"] == "marked"
    assert queued(task, "gpu.1") == []


def test_a_stress_test_is_of_all_shards_on_whatever_device(task: TickTask):
    pool = TradePool(app.services)
    for shard in (0, 1):
        pool.add_trade(buy(status="filled", user_id=user_of_shard(shard), amount="2", price="100"))
    told = stress_test({"crash": {"prices": {"BTC/USDT": "50"}}}, {"BTC/USDT": "100"})
    crash = told["fleet"]["USDT"]
    assert (crash["count"], crash["worst_change"]) == (2, -200)


def test_a_wrong_stored_price_keeps_neither_the_book_from_being_ready_nor_a_tick(task: TickTask):
    TradePool(app.services).add_trade(buy(status="filled", user_id=user_of_shard(0)))
    marking = app.services.marking
    assert marking.catch_up()
    app.services.client.hset(app.services.store.keys.prices, "BTC/USDT", "damaged")
    assert marking.prepare().rows == 1
    with running(task):
        assert task.run()["missing"] == ["BTC/USDT"]


def test_the_clock_sends_no_ticks_to_a_queue_that_nobody_takes_them_from(own_settings: Settings, send: Send):
    clock_of = PoolApp("a-clock", set_as_current=False)
    clock_of.settings = own_settings
    clock_of.add_defaults(celery_settings(own_settings))
    scheduler = TickScheduler(clock_of, lazy=True)
    due = SimpleNamespace(task=mark_to_market.name)
    assert not scheduler._is_full("gpu")
    for number in range(TICKS_WAITING_MAX):
        send(number)
    with structlog.testing.capture_logs() as logs:
        assert [scheduler.apply_async(due, advance=False) for _ in range(3)] == [None] * 3
    assert [line["event"] for line in logs] == ["ticks are not sent"]


def user_of_shard(shard: int) -> str:
    """Somebody whose trades this device has."""
    keys = app.services.store.keys
    return next(name for name in map("user-{}".format, count()) if keys.shard_of_user(name) == shard)
