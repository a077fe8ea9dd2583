"""A worker that its broker refuses waits longer and longer, and says why once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import redis
from celery.worker.consumer import Consumer
from redis.exceptions import NoPermissionError
from structlog.testing import capture_logs

from tasks.broker_refusals import PAUSE_FIRST_S, PAUSE_MAX_S, PatientConsumer
from tradepool.settings import Settings

COMMAND = 'LPUSH trades {"notes": "S3CRET"} (x)'
DENIED = NoPermissionError(f"Command # 2 ({COMMAND}) of pipeline caused error: no right")


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What Celery's own consumer is told, of which nothing else is there."""
    told: list[Exception] = []
    monkeypatch.setattr(Consumer, "__init__", lambda _: None)
    monkeypatch.setattr(Consumer, "on_connection_error_after_connected", lambda _, exc: told.append(exc))
    return told


@pytest.fixture
def consumer(lost: list[Exception], pauses: list[float]) -> PatientConsumer:
    assert lost == []
    made = PatientConsumer()
    made.app = SimpleNamespace(settings=Settings(), stopping=SimpleNamespace(wait=pauses.append))
    return made


def test_each_pause_is_longer_up_to_a_limit_and_the_cause_is_told_once(consumer, pauses, lost):
    with capture_logs() as lines:
        for _ in range(8):
            consumer.on_connection_error_after_connected(DENIED)
    assert pauses[0] == PAUSE_FIRST_S
    assert pauses[1:] == [min(2 * pause, PAUSE_MAX_S) for pause in pauses[:-1]]
    assert pauses[-1] == PAUSE_MAX_S
    assert lost == []
    (line,) = lines
    assert "LPUSH trades: no right" in line["problem"]
    assert "S3CRET" not in line["problem"]


def test_a_lost_connection_is_tried_again_at_once(consumer, pauses, lost):
    problem = redis.ConnectionError("Connection reset by peer")
    consumer.on_connection_error_after_connected(problem)
    assert (lost, pauses) == ([problem], [])
