"""A fleet for each module: a real server on a loopback port, real worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery

from tests.fleet.nodes import WorkerNode, start_worker
from tests.waiting import eventually
from tradepool.broker import ChangeSender
from tradepool.errors import UnknownTrade
from tradepool.fleet.dead_letters import DeadLetter, DeadLetters
from tradepool.pool import TradePool
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store.address import broker_address

VISIBILITY_TIMEOUT_S = 3


class Fleet:
    """A server and its workers; ends them all, whatever happened to the test."""

    def __init__(self, settings: Settings, server: EmbeddedServer, resources: ExitStack) -> None:
        self.settings = settings
        self.server = server
        self.nodes: list[WorkerNode] = []
        self._resources = resources
        self.sender = resources.enter_context(ChangeSender(settings))
        self.dead = resources.enter_context(DeadLetters(settings))
        self.pool = resources.enter_context(TradePool.connect(settings))
        self.foreign = Celery(
            "somebody-else", broker=broker_address(settings).celery_url, set_as_current=False
        )
        resources.callback(self.foreign.close)

    def start(
        self, queues: str, *options: str, threads: int = 2, app: str = "tasks", **changes: object
    ) -> WorkerNode:
        """Start a worker, its settings the fleet's but for `changes`."""
        settings = self.settings.model_copy(update=changes)
        node = start_worker(settings, queues, *options, threads=threads, app=app)
        self._resources.callback(node.teardown)
        self.nodes.append(node)
        return node

    def start_workers(self) -> None:
        """The journal's worker, and one for everything else."""
        self.start("files")
        self.start("trades,tokens,audit", threads=4)
        for node in self.nodes:
            node.wait_ready()

    def restart_server(self, how: signal.Signals) -> None:
        """End the server, gracefully or not, and start it again at the same address."""
        if how is signal.SIGKILL:
            os.kill(self.server.pid, how)
            eventually(lambda: not self.server.is_running())
        self.server.stop()
        port = urlsplit(self.server.url).port
        self.server = self._resources.enter_context(EmbeddedServer(self.settings.data_dir, port=port))

    def knows(self, trade_id: object) -> bool:
        """Whether the pool has that trade by now."""
        try:
            self.pool.get_trade(str(trade_id))
        except UnknownTrade:
            return False
        return True

    def call(self, task: str, *args: object, **kwargs: object) -> str:
        """Call a task as a program would that knows nothing but Celery."""
        queue = {"trades": "trades", "tokens": "tokens", "audit": "audit", "files": "files", "pnl": "gpu"}
        module = task.split(".", maxsplit=1)[0]
        sent = self.foreign.send_task(f"tasks.{task}", args=args, kwargs=kwargs, queue=queue[module])
        return sent.id

    def letters(self, task_id: str | None = None) -> list[DeadLetter]:
        return [letter for letter in self.dead.letters() if task_id in (None, letter.task_id)]


@contextmanager
def running_fleet(data_dir: Path, **options: object) -> Iterator[Fleet]:
    """A server, and no workers yet; `options` are settings."""
    with ExitStack() as resources:
        server = resources.enter_context(EmbeddedServer(data_dir, port=0))
        settings = Settings(
            redis_url=server.url,
            data_dir=data_dir,
            shard_count=4,
            **{"visibility_timeout_s": VISIBILITY_TIMEOUT_S} | options,
        )
        yield Fleet(settings, server, resources)


@pytest.fixture(scope="module")
def bare_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A module's own server, whose workers the tests start and end."""
    with running_fleet(tmp_path_factory.mktemp("pool")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def own_fleet(bare_fleet: Fleet) -> Fleet:
    """A module's own fleet, to be broken."""
    bare_fleet.start_workers()
    return bare_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all tests that leave it whole."""
    with running_fleet(tmp_path_factory.mktemp("pool")) as shared:
        shared.start_workers()
        yield shared
