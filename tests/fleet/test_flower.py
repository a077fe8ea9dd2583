"""Flower as it is started for people who look after the fleet: under their login, behind a password."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from celery import Celery
from pydantic import SecretStr

from tests.fleet.nodes import WorkerNode, start_worker
from tests.fleet.trades import new_trade
from tests.roles import RoleServers, role_servers
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.fleet.dead_letters import DeadLetters
from tradepool.fleet.programs import environment, fleet_programs
from tradepool.server.embedded import free_port
from tradepool.settings import Settings
from tradepool.store.address import broker_address

READY_S = 120.0
LOGIN = "ann:S3CRET-LOGIN"
NOTE = "S3CRET-STRATEGY"
AMOUNT = "31337.25"
PRICE = "27182.81875"
FREE = "161803.375"
TOO_MUCH = "998877665.5"
MARKS = (NOTE, AMOUNT, PRICE, FREE, TOO_MUCH, LOGIN, LOGIN.partition(":")[2])
OPEN_TO_ALL = ("/metrics", "/healthcheck")


class Flower:
    """A Flower of `tradepool up`, and requests to it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.log = settings.data_dir / "flower.log"
        self.start()

    def start(self) -> None:
        (program,) = [one for one in fleet_programs(self._settings) if one.name == "flower"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program.arguments],
                env=environment(self._settings) | program.environment,
                stdout=log,
                stderr=log,
            )
        eventually(self._answers, READY_S)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(READY_S)

    def ask(self, path: str, *, method: str = "GET", login: str | None = LOGIN) -> tuple[int, str]:
        """Status and text of an answer."""
        where = f"http://127.0.0.1:{self._settings.flower_port}{path}"
        request = urllib.request.Request(where, method=method)
        if login is not None:
            request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=READY_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def tasks(self) -> dict[str, dict[str, Any]]:
        """What it has seen of each task."""
        return json.loads(self.ask("/api/tasks?limit=1000")[1])

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            return self.ask("/healthcheck")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module", params=["one server", "two servers"])
def servers(request, server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleServers]:
    with role_servers(tmp_path_factory.mktemp("flower"), two=request.param == "two servers") as running:
        yield running


@pytest.fixture(scope="module")
def workers(servers: RoleServers) -> Iterator[list[WorkerNode]]:
    settings = servers.settings("worker", visibility_timeout_s=3)
    with ExitStack() as stack:
        nodes = [start_worker(settings, queues) for queues in ("files", "trades,tokens,audit")]
        for node in nodes:
            stack.callback(node.teardown)
        for node in nodes:
            node.wait_ready()
        yield nodes


@pytest.fixture(scope="module")
def flower(servers: RoleServers, workers: list[WorkerNode]) -> Iterator[Flower]:
    settings = servers.settings("operator", flower_port=free_port(), flower_basic_auth=SecretStr(LOGIN))
    running = Flower(settings)
    try:
        eventually(lambda: len(json.loads(running.ask("/api/workers?refresh=1")[1])) == len(workers), READY_S)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def sent(servers: RoleServers, flower: Flower) -> list[str]:
    """Ids of tasks of every kind and with every end, that hold what nobody may see."""
    bot = servers.settings("bot")
    secret = new_trade(user_id="ann", amount=AMOUNT, price=PRICE, signals={"note": NOTE})
    with PoolClient.connect(bot) as client:
        trade_id = client.add_trade(secret)
        client.close_trade(trade_id, PRICE)
        client.update_available_tokens("ann", {"BTC": FREE})
        client.reserve_tokens("ann", "BTC", TOO_MUCH, "key", 60)
        assert client.flush(READY_S)
        assert len(client.rejections) == 2
    calls = [
        ("trades.add_trade", [new_trade(amount=AMOUNT, signals={"note": NOTE})]),
        ("trades.add_trade", [{NOTE: AMOUNT}]),
        ("trades.add_trade", [NOTE, AMOUNT, 3]),
        ("trades.no_such_task", [secret]),
        ("tokens.reserve_tokens", ["ann", "BTC", AMOUNT, "other", 60]),
        ("tokens.settle_tokens", ["no-such-reservation", TOO_MUCH]),
    ]
    task_ids = []
    foreign = Celery("somebody-else", broker=broker_address(bot).celery_url, set_as_current=False)
    with foreign:
        for name, args in calls:
            queue = name.partition(".")[0]
            task_ids.append(foreign.send_task(f"tasks.{name}", args=args, queue=queue).id)
    with foreign, foreign.connection_for_write() as connection:
        producer = connection.SimpleQueue("trades")
        producer.put(f'["{NOTE}', headers={"id": str(uuid4()), "task": "x"}, serializer="raw")
        producer.close()
    with DeadLetters(servers.settings("operator")) as dead:
        eventually(lambda: len(list(dead.letters())) >= 6, READY_S)
    ended = {"SUCCESS", "FAILURE"}
    eventually(
        lambda: all(flower.tasks().get(task_id, {}).get("state") in ended for task_id in task_ids), READY_S
    )
    return task_ids


def pages(flower: Flower, workers: list[WorkerNode]) -> list[str]:
    """Every address that shows something."""
    names = [urllib.parse.quote(name) for name in json.loads(flower.ask("/api/workers")[1])]
    tasks = flower.tasks()
    assert len(names) == len(workers)
    return [
        *("/", "/workers", "/tasks", "/broker", "/metrics", "/healthcheck"),
        *("/api/workers", "/api/workers?refresh=1", "/api/workers?status=1", "/api/tasks", "/api/task/types"),
        "/api/queues/length",
        *(f"/worker/{name}" for name in names),
        *(f"/{kind}/{task_id}" for task_id in tasks for kind in ("task", "api/task/info")),
    ]


@pytest.mark.slow
def test_no_page_and_no_log_shows_a_payload_an_amount_or_a_password(
    servers: RoleServers, workers: list[WorkerNode], flower: Flower, sent: list[str]
):
    passwords = [servers.password(role) for role in ("bot", "worker", "operator", "metrics")]
    shown = {page: flower.ask(page) for page in pages(flower, workers)}
    assert {status for status, _ in shown.values()} == {200}
    texts = {page: text for page, (_, text) in shown.items()}
    assert all(any(task_id in text for text in texts.values()) for task_id in sent)
    texts |= {node.process.name: node.logs() for node in workers}
    texts["flower's log"] = flower.log.read_text(encoding="utf-8")
    hidden = (*MARKS, *passwords)
    assert [(place, mark) for place, text in texts.items() for mark in hidden if mark in text] == []


@pytest.mark.slow
def test_an_answer_that_a_caller_waits_for_is_not_shown_either(
    servers: RoleServers, flower: Flower, sent: list[str]
):
    bot = servers.settings("worker")
    with Celery("somebody-else", broker=broker_address(bot).celery_url, set_as_current=False) as foreign:
        foreign.conf.result_backend = broker_address(bot).celery_url
        name, args = "tasks.tokens.reserve_tokens", ["ann", "BTC", AMOUNT, "waited for", 60]
        asked = foreign.send_task(name, args=args, queue="tokens", ignore_result=False)
        assert AMOUNT in str(asked.get(timeout=READY_S))
    eventually(lambda: flower.tasks().get(asked.id, {}).get("state") == "SUCCESS", READY_S)
    for page in (f"/api/task/result/{asked.id}", f"/task/{asked.id}", f"/api/task/info/{asked.id}"):
        assert AMOUNT not in flower.ask(page)[1], page
    assert ("operator", "key") in {(user, reason) for user, reason, _ in servers.denied()}


@pytest.mark.slow
def test_whoever_has_no_login_sees_figures_without_names_and_nothing_else(
    flower: Flower, workers: list[WorkerNode], sent: list[str]
):
    for login in (None, "ann:wrong", "operator:S3CRET-LOGIN"):
        refused = [page for page in pages(flower, workers) if flower.ask(page, login=login)[0] == 401]
        assert set(pages(flower, workers)) - set(refused) == set(OPEN_TO_ALL)
        for path in ("/api/task/send-task/tasks.trades.add_trade", "/api/worker/shutdown/x"):
            assert flower.ask(path, method="POST", login=login)[0] == 401
    figures = flower.ask("/metrics", login=None)[1]
    assert "flower_events_total" in figures
    assert not [task_id for task_id in sent if task_id in figures]
    assert "user-1" not in figures
    listening = [
        one for one in psutil.Process(flower.process.pid).net_connections() if one.status == "LISTEN"
    ]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}


@pytest.mark.slow
def test_an_operator_revokes_and_inspects_and_is_denied_nothing(
    servers: RoleServers, workers: list[WorkerNode], flower: Flower
):
    servers.denied()
    task_id = str(uuid4())
    assert flower.ask(f"/api/task/revoke/{task_id}", method="POST")[0] == 200
    for name in json.loads(flower.ask("/api/workers")[1]):
        page = f"/api/workers?refresh=1&workername={name}"
        eventually(lambda page=page: task_id in flower.ask(page)[1], READY_S)
    assert flower.ask("/api/queues/length")[0] == 200
    assert servers.denied() == []


@pytest.mark.slow
def test_what_flower_has_seen_outlives_it(flower: Flower, sent: list[str]):
    before = flower.tasks()
    flower.stop()
    flower.start()
    assert {task_id: flower.tasks()[task_id]["state"] for task_id in sent} == {
        task_id: before[task_id]["state"] for task_id in sent
    }
