"""A worker tells that it lives, through a server that goes away and comes back, and takes its leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import heartbeat
from tests.servers import Server
from tests.waiting import eventually
from tradepool.errors import Unavailable
from tradepool.settings import Settings
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.vitals import Vitals, WorkerBeat


@pytest.fixture
def server(tmp_path: Path, server_binary: Path) -> Iterator[Server]:
    with Server(tmp_path / "own") as running:
        yield running


@pytest.fixture
def worker(server: Server, tmp_path: Path) -> Any:
    """As much of a worker as the step looks at."""
    settings = Settings(redis_url=server.url, data_dir=tmp_path, shard_count=4)
    queues = SimpleNamespace(consume_from={"tokens": None, "audit": None})
    app = SimpleNamespace(settings=settings, amqp=SimpleNamespace(queues=queues))
    return SimpleNamespace(app=app, hostname="w@here")


def test_a_worker_beats_until_it_stops(server: Server, worker: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heartbeat, "BEAT_EVERY_S", 0.02)
    vitals = Vitals(connect(worker.app.settings), Keys(4))
    step = heartbeat.Heartbeat(worker)
    step.start(worker)
    try:
        eventually(lambda: beats(vitals))
        ((queues, name, at),) = beats(vitals)
        assert (queues, name) == (("audit", "tokens"), "w@here")
        eventually(lambda: beats(vitals)[0].at > at)
        server.kill()
        server.start()
        eventually(lambda: beats(vitals) and beats(vitals)[0].at > at)
    finally:
        step.stop(worker)
    assert beats(vitals) == []


def beats(vitals: Vitals) -> list[WorkerBeat]:
    try:
        return vitals.read().workers
    except Unavailable:
        return []
