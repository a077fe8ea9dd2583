"""The clock's messages: which tick they are of, and that each tick takes effect once."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta

import pytest
import redis
import structlog
from celery.exceptions import Ignore
from celery.schedules import crontab
from redbeat.schedulers import RedBeatJSONEncoder, RedBeatSchedulerEntry
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.app import PoolApp, app
from tasks.beat import TICKS_WAITING_MAX, TICKS_WAITING_MAX_SHARED, TickScheduler, due_at
from tasks.config import celery_settings
from tasks.doubled_ticks import is_doubled, tick_header
from tasks.tokens import expire_reservations
from tests.waiting import eventually
from tradepool import wire
from tradepool.server.embedded import free_port
from tradepool.settings import Settings
from tradepool.store import tick_guard
from tradepool.store.tick_guard import Tick

EXPIRE = "expire-reservations"
LAST_RUN = datetime(2026, 11, 22, 3, 20, tzinfo=UTC)


@pytest.fixture
def own_settings(settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Settings:
    own = settings.model_copy(update={"expire_every_s": 0.01})
    monkeypatch.setattr(app, "settings", own)
    return own


@pytest.fixture
def clocks(own_settings: Settings) -> Iterator[list[TickScheduler]]:
    """Two beats that both take themselves for the leader."""
    made = [clock(own_settings) for _ in range(2)]
    yield made
    for one in made:
        one.close()
    app.disconnect_pool()


def clock(settings: Settings) -> TickScheduler:
    clock_of = PoolApp("a-clock", set_as_current=False)
    clock_of.settings = settings
    clock_of.add_defaults(celery_settings(settings))
    scheduler = TickScheduler(clock_of, lazy=True)
    scheduler.lock_key = None
    scheduler.setup_schedule()
    return scheduler


def entry_of(scheduler: TickScheduler, name: str = EXPIRE) -> RedBeatSchedulerEntry:
    return scheduler.Entry.from_key(scheduler.Entry.generate_key(scheduler.app, name), app=scheduler.app)


def set_last_run(scheduler: TickScheduler, client: redis.Redis, at: datetime, name: str = EXPIRE) -> None:
    meta = json.dumps({"last_run_at": at}, cls=RedBeatJSONEncoder)
    client.hset(scheduler.Entry.generate_key(scheduler.app, name), "meta", meta)


def headers_on(client: redis.Redis, queue: str) -> list[dict[str, object]]:
    """Those of the messages on a queue, oldest first."""
    return [wire.decode(raw)["headers"] for raw in reversed(client.lrange(queue, 0, -1))]


def tick(due_ms: int, token: str, **fields: object) -> Tick:
    return Tick(**{"entry": EXPIRE, "due_ms": due_ms, "token": token, "kept_ms": 60_000, **fields})


def test_two_clocks_that_saw_the_same_last_run_send_one_tick(clocks, redis_client: redis.Redis):
    set_last_run(clocks[0], redis_client, LAST_RUN)
    for scheduler, entry in zip(clocks, [entry_of(scheduler) for scheduler in clocks], strict=True):
        scheduler.apply_async(entry)
    first, second = headers_on(redis_client, "tokens")
    assert first["id"] == second["id"] == f"{EXPIRE}-{round(LAST_RUN.timestamp() * 1000) + 10}"
    assert first["tick"]["token"] != second["tick"]["token"]
    assert [is_doubled(app, "t", sent["tick"]) for sent in (first, second, first)] == [False, True, False]


def test_a_clock_that_stood_still_brings_nothing_that_is_over(clocks, redis_client: redis.Redis):
    set_last_run(clocks[0], redis_client, LAST_RUN)
    stopped = entry_of(clocks[0])
    for _ in range(3):
        clocks[1].apply_async(entry_of(clocks[1]))
    clocks[0].apply_async(stopped)
    sent = headers_on(redis_client, "tokens")
    due = [header["tick"]["due_ms"] for header in sent]
    assert due[0] == due[3] < due[1] < due[2]
    assert [is_doubled(app, "t", header["tick"]) for header in sent] == [False, False, False, True]


def test_a_tick_may_be_taken_again_by_its_own_message_only(redis_client: redis.Redis):
    assert tick_guard.take(redis_client, tick(1000, "a"))
    assert tick_guard.take(redis_client, tick(1000, "a")), "its worker died"
    assert not tick_guard.take(redis_client, tick(1000, "b"))
    assert not tick_guard.take(redis_client, tick(999, "c"))
    assert tick_guard.take(redis_client, tick(999, "c", entry="another"))
    assert tick_guard.take(redis_client, tick(1001, "b"))
    assert not tick_guard.take(redis_client, tick(1000, "a")), "a later one was taken meanwhile"


def test_what_is_remembered_of_a_tick_expires(redis_client: redis.Redis):
    assert tick_guard.take(redis_client, tick(1000, "a"))
    assert 0 < redis_client.pttl(f"tp:tick:{EXPIRE}") <= 60_000
    assert tick_guard.take(redis_client, tick(1001, "b", kept_ms=1))
    eventually(lambda: not redis_client.exists(f"tp:tick:{EXPIRE}"))
    assert tick_guard.take(redis_client, tick(1, "c")), "a clock that was set back is heard again"


def test_only_the_clocks_messages_are_guarded(own_settings: Settings, redis_client: redis.Redis):
    task = expire_reservations

    def run(**about: object) -> object:
        task.push_request(id="t", called_directly=False, delivery_info={}, **about)
        try:
            return task()
        finally:
            task.pop_request()

    try:
        assert run(**tick_header(tick(5, "a"))) == 0
        with pytest.raises(Ignore):
            run(**tick_header(tick(5, "b")))
        assert run() == 0
        assert run(tick={"entry": "garbage"}) == 0
        redis_client.delete(f"tp:tick:{EXPIRE}")
        redis_client.lpush(f"tp:tick:{EXPIRE}", "no string")
        assert run(**tick_header(tick(5, "c"))) == 0
    finally:
        app.disconnect_pool()


def test_a_crontabs_tick_is_due_when_it_says(clocks, redis_client: redis.Redis):
    set_last_run(clocks[0], redis_client, LAST_RUN, "check-all-trades-deep")
    entry = entry_of(clocks[0], "check-all-trades-deep")
    assert isinstance(entry.schedule, crontab)
    assert due_at(entry) == datetime(2026, 11, 23, 3, 17, tzinfo=UTC)


def test_a_clock_that_was_set_back_goes_on_at_once(clocks, redis_client: redis.Redis):
    scheduler = clocks[0]
    scheduler.tick()
    redis_client.delete("tokens")
    ahead = datetime.now(UTC) + timedelta(hours=1)
    entry_of(scheduler)._next_instance(only_update_last_run_at=True, last_run_at=ahead)
    scheduler.tick()
    assert headers_on(redis_client, "tokens") == []
    # The wall clock was an hour ahead of the monotonic one at the tick before.
    scheduler._ahead_s += 3600
    with structlog.testing.capture_logs() as logs:
        eventually(lambda: scheduler.tick() and headers_on(redis_client, "tokens"))
    assert [line["event"] for line in logs] == ["the clock was set back"]


def test_a_clock_that_takes_over_is_not_held_up_by_one_that_was_ahead(clocks, redis_client: redis.Redis):
    clocks[0].tick()
    redis_client.delete("tokens")
    ahead = datetime.now(UTC) + timedelta(hours=1)
    entry_of(clocks[0])._next_instance(only_update_last_run_at=True, last_run_at=ahead)
    eventually(lambda: clocks[1].tick() and headers_on(redis_client, "tokens"))


def test_a_clock_whose_broker_is_away_waits_and_says_so_once(own_settings: Settings, redis_client):
    scheduler = clock(own_settings)

    def away(*_: object) -> None:
        raise redis.ConnectionError("refused")

    with structlog.testing.capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TickScheduler, "schedule", property(away))
        assert [scheduler.tick() for _ in range(3)] == [scheduler.max_interval] * 3
        patch.undo()
        scheduler.tick()
    assert [line["event"] for line in logs] == ["the clock stands still", "works again"]


@pytest.mark.parametrize("error", [redis.exceptions.LockNotOwnedError, redis.exceptions.LockError])
def test_a_clock_that_lost_its_lock_ends(own_settings: Settings, redis_client, error):
    class Lock:
        def extend(self, _seconds: int) -> None:
            raise error("not owned")

    scheduler = clock(own_settings)
    scheduler.lock_key = "lock"
    for lock in (Lock(), None):
        scheduler.lock = lock
        with pytest.raises(SystemExit):
            scheduler.tick()


def test_no_ticks_pile_up_on_a_queue_that_nobody_reads(own_settings: Settings, redis_client: redis.Redis):
    scheduler = clock(own_settings)
    for queue in ("audit", "files", "gpu"):
        redis_client.lpush(queue, *["message"] * TICKS_WAITING_MAX)
    redis_client.lpush("tokens", *["message"] * TICKS_WAITING_MAX)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            for name in scheduler.app.conf.beat_schedule:
                scheduler.apply_async(entry_of(scheduler, name))
    assert [redis_client.llen(queue) for queue in ("audit", "files", "gpu")] == [TICKS_WAITING_MAX] * 3
    assert redis_client.llen("tokens") == TICKS_WAITING_MAX + 2, "bots send there as well"
    assert [line["event"] for line in logs] == ["ticks are not sent"] * 3
    redis_client.lpush("tokens", *["message"] * TICKS_WAITING_MAX_SHARED)
    assert scheduler.apply_async(entry_of(scheduler)) is None


def test_a_clock_that_may_not_send_says_so_once_and_without_a_stack(
    own_settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
):
    scheduler = clock(own_settings)
    redis_client.execute_command("ACL", "SETUSER", "default", "-lpush")
    try:
        lines = [line for _ in range(3) for line in said_when_due(scheduler, redis_client)]
    finally:
        redis_client.execute_command("ACL", "SETUSER", "default", "+lpush")
    (line,) = lines
    assert (line["event"], line["entry"]) == ("ticks are not sent", EXPIRE)
    assert "the broker denies its user a right" in line["problem"]
    assert caplog.records == []
    assert [line["event"] for line in said_when_due(scheduler, redis_client)] == ["works again"]


def said_when_due(scheduler: TickScheduler, client: redis.Redis) -> list[MutableMapping[str, object]]:
    set_last_run(scheduler, client, LAST_RUN)
    with structlog.testing.capture_logs() as lines:
        scheduler.maybe_due(entry_of(scheduler))
    return lines


def test_a_clock_is_closed_also_while_the_server_of_its_lock_is_away(clocks: list[TickScheduler]):
    """It is closed in the handler of SIGTERM: an error there would be one of the tick that it interrupts."""
    with redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)) as nobody:
        clocks[0].lock = nobody.lock("clock")
        clocks[0].close()
    assert clocks[0].lock is None
