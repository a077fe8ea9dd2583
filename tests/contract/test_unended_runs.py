"""A message over which whole workers die is parked in the end; those that merely come again are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery.exceptions import Reject

from tasks import pool_task
from tasks.app import app
from tasks.deaths import Deaths
from tasks.parking import Letter
from tasks.pool_task import WORKERS_LOST_MAX
from tasks.trades import apply_changes
from tradepool.errors import StoreUnavailable
from tradepool.settings import Settings

KEY = "tp:runs:*"


@pytest.fixture
def parked(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Letter]]:
    """What the task has parked."""
    letters: list[Letter] = []
    monkeypatch.setattr(app, "settings", settings)
    monkeypatch.setattr(pool_task, "park", lambda _app, new: letters.extend(new))
    yield letters
    app.disconnect_pool()
    redis_client.delete(*redis_client.keys(KEY), "nothing")


def run(*, redelivered: bool = True, dies: bool = False) -> Any:
    """A worker runs an empty message, or its process dies over it."""
    apply_changes.push_request(
        id="message", called_directly=False, delivery_info={"redelivered": redelivered}
    )
    try:
        if dies:
            return Deaths(app, apply_changes.request).count()
        return apply_changes([])
    finally:
        apply_changes.pop_request()


def test_a_message_over_which_one_worker_after_the_other_dies_is_parked(
    parked: list[Letter], redis_client: redis.Redis
):
    # The first death is not counted: nobody knows then that the message will come again.
    assert [run(dies=True) for _ in range(WORKERS_LOST_MAX)] == list(range(1, WORKERS_LOST_MAX + 1))
    assert run() is None
    (letter,) = parked
    assert letter["reason"]["problem"] == f"{WORKERS_LOST_MAX + 1} worker processes died over it"
    assert letter["payload"] == {"args": ([],), "kwargs": {}}
    assert not redis_client.keys(KEY), "sent again from there, it has its runs before it"


def test_a_run_that_ends_clears_the_message(parked: list[Letter], redis_client: redis.Redis):
    for _ in range(3):
        assert run(dies=True) == 1
        assert run() == []
    assert not redis_client.keys(KEY)
    assert not parked


def test_going_back_to_the_queue_is_no_death(
    parked: list[Letter], redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(apply_changes, "run", away)
    for _ in range(2 * WORKERS_LOST_MAX):
        with pytest.raises(Reject):
            run()
    assert not redis_client.keys(KEY)
    assert not parked


def test_a_message_that_comes_for_the_first_time_is_not_counted(
    parked: list[Letter], redis_client: redis.Redis
):
    assert run(redelivered=False, dies=True) == 0
    assert run(redelivered=False) == []
    assert not redis_client.keys(KEY)
    assert not parked


def test_what_is_known_of_deaths_expires_and_is_not_missed(
    parked: list[Letter], settings: Settings, redis_client: redis.Redis
):
    run(dies=True)
    (key,) = redis_client.keys(KEY)
    assert settings.visibility_timeout_s < redis_client.ttl(key) <= 4 * settings.visibility_timeout_s
    redis_client.delete(key)
    redis_client.lpush(key, "no number")
    assert run() == []
    assert not parked
