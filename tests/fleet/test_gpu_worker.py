"""The gpu worker: its book is ready before a tick comes, old ticks are dropped, several devices share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery import Celery
from celery.result import AsyncResult

from tests.fleet.conftest import Fleet, running_fleet
from tests.fleet.nodes import WorkerNode, log_lines
from tests.fleet.trades import new_trades
from tests.waiting import eventually
from tradepool.errors import Fenced
from tradepool.fleet.programs import fleet_programs, generated_login
from tradepool.fleet.supervisor import Supervisor
from tradepool.pool import TradePool
from tradepool.settings import Settings
from tradepool.store.address import broker_address
from tradepool.store.fence import is_open, open_fence

SOLO = ("-P", "solo", "-c", "1", "--disable-prefetch")
START_US = 1_750_000_000_000_000
TICK = "tasks.pnl.mark_to_market"
ANSWER_S = 40.0


class Ticks:
    """Sends ticks as a program that knows nothing but Celery, and waits for their answers."""

    def __init__(self, settings: Settings) -> None:
        url = broker_address(settings).celery_url
        self._app = Celery("a-feed", broker=url, backend=url, set_as_current=False)
        self.close = self._app.close

    def send(self, number: int, price: object = 110, *, queue: str = "gpu", **options: Any) -> AsyncResult:
        """Tick number `number` at a price of BTC/USDT."""
        arguments = {"prices": {"BTC/USDT": price}, "at": START_US + number}
        return self._app.send_task(TICK, kwargs=arguments, queue=queue, ignore_result=False, **options)

    def call(self, task: str, *args: object, queue: str = "gpu") -> AsyncResult:
        return self._app.send_task(task, args=args, queue=queue, ignore_result=False)


@pytest.fixture
def ticks(bare_fleet: Fleet) -> Iterator[Ticks]:
    sender = Ticks(bare_fleet.settings)
    yield sender
    sender.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A server with a journal's worker, to be used by one test."""
    with running_fleet(tmp_path / "pool") as own:
        own.start("files")
        yield own


@pytest.fixture
def fleet_ticks(fleet: Fleet) -> Iterator[Ticks]:
    sender = Ticks(fleet.settings)
    yield sender
    sender.close()


def add_trades(fleet: Fleet, count: int) -> None:
    eventually(lambda: is_open(fleet.pool.redis))
    fleet.pool.add_trades([trade | {"status": "filled"} for trade in new_trades(count)])


def start_gpu(fleet: Fleet, *options: str) -> WorkerNode:
    worker = fleet.start("gpu", *SOLO, *options)
    wait_for(worker, "book ready")
    return worker


def wait_for(worker: WorkerNode, event: str) -> None:
    eventually(lambda: any(line["event"] == event for line in log_lines(worker)), ANSWER_S)


def errors(worker: WorkerNode) -> list[str]:
    """What the worker's log has of errors, in order."""
    return [line["event"] for line in log_lines(worker) if line["level"] == "error"]


def read_from(worker: WorkerNode) -> list[str]:
    """Where the worker got its book from, each time."""
    return [line["read_from"] for line in log_lines(worker) if "read_from" in line]


def is_drained(fleet: Fleet, queue: str = "gpu") -> bool:
    """Whether nothing waits on the queue and nothing is unacknowledged."""
    return fleet.pool.redis.llen(queue) == 0 and fleet.pool.redis.hlen("unacked") == 0


def test_of_ticks_that_pile_up_the_newest_is_marked_and_none_is_lost(bare_fleet: Fleet, ticks: Ticks):
    open_fence(bare_fleet.pool.redis)
    sent = [ticks.send(number, 100 + number) for number in range(50)]
    garbage = [ticks.call(TICK, {"BTC/USDT": "-1"}), ticks.call("tasks.pnl.no_such_task")]
    last = ticks.send(50, 150, priority=9)
    worker = bare_fleet.start("gpu", *SOLO)
    answers = [one.get(timeout=ANSWER_S) for one in [*sent, last]]
    assert [answer["outcome"] for answer in answers] == ["stale"] * 50 + ["marked"]
    assert answers[-1]["at"] == START_US + 50
    eventually(lambda: is_drained(bare_fleet))
    assert {letter.task_id for letter in bare_fleet.letters()} == {one.id for one in garbage}
    assert bare_fleet.pool.get_mark_totals()["at"] == START_US + 50
    assert worker.logs().count("book ready") == 1
    worker.kill("SIGTERM")
    assert worker.process.exit_code == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_in_a_tick_goes_on_with_the_next_from_its_saved_book(
    fleet: Fleet, fleet_ticks: Ticks
):
    add_trades(fleet, 200)
    worker = start_gpu(fleet)
    assert fleet_ticks.send(1, 110).get(timeout=ANSWER_S)["totals"] == {"USDT": "4000.00000000"}
    worker.kill("SIGTERM")
    for number in range(2, 200):
        fleet_ticks.send(number, 110)
    worker.process.restart()
    eventually(lambda: fleet.pool.redis.hlen("unacked") == 1)
    worker.kill("SIGKILL")
    last = fleet_ticks.send(200, 120)
    worker.process.restart()
    assert last.get(timeout=ANSWER_S) | {"backend": ""} == {
        "outcome": "marked",
        "at": START_US + 200,
        "backend": "",
        "totals": {"USDT": "8000.00000000"},
        "users": 20,
        "rows": 200,
        "missing": [],
        "stale": {},
    }
    # The one that was being marked comes again after the visibility timeout, and is history.
    eventually(lambda: is_drained(fleet))
    assert fleet.pool.get_mark_totals()["at"] == START_US + 200
    assert "file" in read_from(worker)


@pytest.mark.slow
def test_a_worker_waits_for_the_pool_to_be_recovered_and_its_ticks_fail_meanwhile(tmp_path: Path):
    with running_fleet(tmp_path / "pool") as fleet:
        ticks = Ticks(fleet.settings)
        worker = fleet.start("gpu", *SOLO)
        wait_for(worker, "the book waits for the pool to open")
        failed = [ticks.send(number) for number in range(3)]
        with pytest.raises(Fenced):
            failed[-1].get(timeout=ANSWER_S)
        eventually(lambda: is_drained(fleet))
        fleet.start("files")
        wait_for(worker, "book ready")
        assert ticks.send(9).get(timeout=ANSWER_S)["at"] == START_US + 9
        assert errors(worker) == ["ticks fail"]
        assert fleet.letters() == []
        ticks.close()


@pytest.mark.slow
def test_a_stored_price_that_is_none_counts_as_missing_and_is_told_once(fleet: Fleet, fleet_ticks: Ticks):
    add_trades(fleet, 1)
    worker = start_gpu(fleet)
    fleet.pool.set_prices({"BTC/USDT": "120"})
    assert fleet_ticks.call(TICK).get(timeout=ANSWER_S)["totals"] == {"USDT": "40.00000000"}
    keys = fleet.pool.store.keys
    fleet.pool.redis.hset(keys.prices, "BTC/USDT", "damaged")
    for _ in range(3):
        assert fleet_ticks.call(TICK).get(timeout=ANSWER_S)["missing"] == ["BTC/USDT"]
    assert (errors(worker), fleet.letters()) == (["stored prices are none"], [])
    fleet.pool.redis.hdel(keys.prices, "BTC/USDT")
    assert fleet_ticks.call(TICK).get(timeout=ANSWER_S)["missing"] == ["BTC/USDT"]


@pytest.mark.slow
def test_a_worker_of_celerys_default_pool_marks_as_well(fleet: Fleet, fleet_ticks: Ticks):
    add_trades(fleet, 10)
    worker = fleet.start("gpu", "-P", "prefork", "-c", "1")
    assert fleet_ticks.send(1, 110).get(timeout=ANSWER_S)["totals"] == {"USDT": "200.00000000"}
    assert "start the gpu worker with -P solo" in worker.logs()
    assert "book ready" not in worker.logs()


@pytest.mark.slow
def test_the_book_is_kept_between_ticks_and_saved_when_the_worker_stops(fleet: Fleet):
    add_trades(fleet, 10)
    worker = start_gpu(fleet)
    worker.kill("SIGTERM")
    assert worker.process.exit_code == 0
    worker.process.restart()
    eventually(lambda: read_from(worker) == ["store", "file"], ANSWER_S)


@pytest.mark.slow
def test_two_devices_share_the_users_and_mark_them_at_one_vector_of_prices(tmp_path: Path):
    with running_fleet(tmp_path / "pool") as fleet:
        settings = fleet.settings.model_copy(update={"pnl_devices": 2, "cpu_threads": 1})
        names = {"files", "gpu", "gpu-1"}
        login = settings.model_copy(update={"flower_basic_auth": generated_login()})
        programs = [program for program in fleet_programs(login) if program.name in names]
        ticks = Ticks(settings)
        with Supervisor(settings, programs), TradePool.connect(settings) as pool:
            add_trades(fleet, 300)
            pool.set_prices({"BTC/USDT": "130"})
            ticks.call(TICK, None, START_US).get(timeout=ANSWER_S)
            eventually(lambda: has_marked(pool, 300), ANSWER_S)
            users = [f"user-{number}" for number in range(20)]
            assert ticks.call("tasks.pnl.check_book").get(timeout=ANSWER_S) == {"outcome": "started"}
            eventually(lambda: len(pool.store.read_book_check()) == 2, ANSWER_S)
            checks = [msgspec.json.decode(report) for report in pool.store.read_book_check()]
            assert [check["part"] for check in checks] == [0, 1]
            assert (sum(check["rows"] for check in checks), checks[0]["different"]) == (300, 0)
            stressed = ticks.call("tasks.pnl.stress_test", [{"shocks": {"*": "-0.1"}}]).get(timeout=ANSWER_S)
            assert (stressed["fleet"]["USDT"]["count"], stressed["missing"]) == (300, [])
            assert stressed["fleet"]["USDT"]["value_at_risk"] == "7800.00000000"
            shared = {user_id: pool.get_marks(user_id) for user_id in users}
            totals = pool.get_mark_totals()
            # This process has no device: it marks all shards by itself.
            pool.mark_to_market({"BTC/USDT": "130"}, at=START_US)
            assert {user_id: pool.get_marks(user_id) for user_id in users} == shared
            assert pool.get_mark_totals() == totals
            assert totals["totals"] == {"USDT": "18000.00000000"}
            eventually(lambda: is_drained(fleet) and is_drained(fleet, "gpu.1"))
        ticks.close()


def has_marked(pool: TradePool, rows: int) -> bool:
    totals = pool.get_mark_totals()
    return totals is not None and totals["rows"] == rows
