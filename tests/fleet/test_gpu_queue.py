"""Which ticks are stale: what lies on the queue, in whatever order and company, decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from tasks.queued_ticks import QueuedTicks, time_of_tick
from tradepool.broker import ChangeSender
from tradepool.errors import InvalidTrade
from tradepool.settings import Settings

TICK = "tasks.pnl.mark_to_market"
START_US = 1_750_000_000_000_000
PRICES = {"BTC/USDT": "100"}

Send = Callable[..., str]


@pytest.fixture
def queued(settings: Settings) -> Iterator[QueuedTicks]:
    ticks = QueuedTicks(settings, TICK)
    yield ticks
    ticks.close()


@pytest.fixture
def send(settings: Settings, redis_client: redis.Redis) -> Iterator[Send]:
    """Puts a call on the queue of an empty broker; its task id."""
    with ChangeSender(settings) as sender:

        def sent(number: int | None, prices: object = PRICES, *, task: str = TICK, **options: object) -> str:
            at = None if number is None else START_US + number
            return sender.call("gpu", task, [prices], kwargs={"at": at}, **options)

        yield sent


def is_stale(queued: QueuedTicks, number: int, task_id: str = "running") -> bool:
    return queued.is_stale(task_id, "gpu", START_US + number)


def test_a_tick_is_stale_when_a_newer_one_waits_behind_it(queued: QueuedTicks, send: Send):
    assert not is_stale(queued, 1)
    send(2)
    assert is_stale(queued, 1)
    # Of two of the same time the later one is enough.
    assert is_stale(queued, 2)
    assert not is_stale(queued, 3)


def test_an_older_tick_that_waits_is_stale_once_a_newer_one_was_marked(
    queued: QueuedTicks, send: Send, redis_client: redis.Redis
):
    older = send(1)
    assert not is_stale(queued, 5)
    message = redis_client.lpop("gpu")
    assert not is_stale(queued, 1, older)
    redis_client.lpush("gpu", message)
    assert not is_stale(queued, 5)
    queued.overtake()
    redis_client.delete("gpu")
    assert is_stale(queued, 1, older)
    assert not is_stale(queued, 1, "another one")


def test_a_newer_tick_is_found_among_other_tasks_and_in_every_priority(queued: QueuedTicks, send: Send):
    send(9)
    for _ in range(30):
        send(None, task="tasks.pnl.stress_test")
    assert is_stale(queued, 1)
    assert not is_stale(queued, 10)
    send(11, priority=9)
    assert is_stale(queued, 10)


@pytest.mark.parametrize(
    "options",
    [
        {"task": "tasks.pnl.stress_test"},
        {"expires": datetime.now(UTC) - timedelta(seconds=1)},
        {"countdown": 3600},
    ],
)
def test_what_will_not_be_marked_next_is_no_newer_tick(queued: QueuedTicks, send: Send, options):
    send(2, **options)
    assert not is_stale(queued, 1)
    send(3)
    send(2, **options)
    assert is_stale(queued, 1)


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00", b"[]", b'{"headers": {"task": "x"}}', b"7" * 5000])
def test_garbage_on_the_queue_is_passed_over(
    queued: QueuedTicks, send: Send, redis_client: redis.Redis, garbage: bytes
):
    redis_client.lpush("gpu", garbage)
    assert not is_stale(queued, 1)
    send(2)
    redis_client.lpush("gpu", garbage)
    assert is_stale(queued, 1)


def test_a_call_with_a_time_that_is_none_or_with_too_many_arguments_is_no_tick(
    queued: QueuedTicks, settings: Settings, redis_client: redis.Redis
):
    with ChangeSender(settings) as sender:
        sender.call("gpu", TICK, [PRICES], kwargs={"at": "yesterday"})
        sender.call("gpu", TICK, [PRICES, START_US + 2, {}, "one too many"])
        sender.call("gpu", TICK, [PRICES], kwargs={"rows": True})
    assert not is_stale(queued, 1)


def test_the_newest_tick_that_can_be_marked_is_found_wherever_it_stands(queued: QueuedTicks, send: Send):
    assert queued.newest("gpu") is None
    send(3)
    send(9, {"BTC/USDT": "107"}, priority=9)
    send(5)
    send(11, {"BTC/USDT": "-1"})
    send(12, "no prices")
    newest = queued.newest("gpu")
    assert newest.arguments == {"prices": {"BTC/USDT": "107"}, "at": START_US + 9, "stale": None}
    assert queued.newest("gpu") == newest


def test_without_a_time_of_its_own_a_tick_is_of_when_it_was_sent(queued: QueuedTicks, send: Send):
    send(None)
    assert is_stale(queued, 1)
    assert time_of_tick(None, 17) == 17
    assert time_of_tick(None, None) == math.inf
    assert time_of_tick("2026-01-01", 17) == 1_767_225_600_000_000
    with pytest.raises(InvalidTrade, match="at"):
        time_of_tick("yesterday", 17)


def test_while_the_broker_is_away_every_tick_is_marked(settings: Settings):
    gone = QueuedTicks(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}), TICK)
    assert not is_stale(gone, 1)
    assert gone.newest("gpu") is None
    gone.close()
