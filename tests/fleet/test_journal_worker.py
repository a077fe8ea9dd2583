"""The worker that owns the journal, and the watch over workers that fall silent."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from celery.worker import state
from structlog.testing import capture_logs

from tasks import journal_step, reliability
from tasks.journal_step import EXIT_JOURNAL
from tasks.reliability import EXIT_QUIET, QuietWatchdog
from tests.fleet.conftest import Fleet
from tests.fleet.trades import new_trade
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.errors import Fenced
from tradepool.files.journal import JOURNAL_NAME

CONFIRM_S = 30.0


def test_a_second_files_worker_waits_for_its_turn(own_fleet: Fleet):
    second = own_fleet.start("files")
    second.wait_for_log("journal not available")
    own_fleet.nodes[0].kill("SIGKILL")
    with PoolClient.connect(own_fleet.settings) as client:
        assert all(client.confirm([client.add_trade(new_trade())], CONFIRM_S).values())
    assert second.process.exit_code is None
    second.teardown()


def test_a_damaged_journal_ends_the_worker_with_an_error(own_fleet: Fleet):
    log = own_fleet.settings.data_dir / JOURNAL_NAME
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"side":"buy"', b'"side":"bux"', 1))
    (log.parent / "journal.checkpoint").unlink(missing_ok=True)
    worker = own_fleet.start("files")
    eventually(lambda: worker.process.exit_code is not None)
    assert worker.process.exit_code == EXIT_JOURNAL
    assert "ChecksumMismatch" in worker.logs()
    log.write_bytes(whole)


def test_the_last_line_of_a_worker_whose_journal_has_ended_has_the_reason(monkeypatch: pytest.MonkeyPatch):
    """The thread that journaled tells it; that this thread is gone is noticed next, and is no news."""
    monkeypatch.setattr(state, "should_stop", None)
    with capture_logs() as lines:
        journal_step._exit_worker(Fenced("another writer has taken over"))
        journal_step._exit_worker(RuntimeError("the journal's thread has ended"))
    assert [(line["kind"], line["problem"]) for line in lines] == [
        ("Fenced", "another writer has taken over")
    ]
    assert state.should_stop == EXIT_JOURNAL


@pytest.fixture
def quiet_worker(own_fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """A watchdog over a worker that takes nothing, with short times, and what it exited with."""
    exits: list[int] = []
    monkeypatch.setattr(reliability, "CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(reliability, "QUIET_S", 0.05)
    queues = SimpleNamespace(consume_from={"gpu": None})
    app = SimpleNamespace(settings=own_fleet.settings, amqp=SimpleNamespace(queues=queues))
    watchdog = QuietWatchdog(SimpleNamespace(app=app, steps=[]))

    def leave(code: int) -> None:
        exits.append(code)
        watchdog.stop(None)

    monkeypatch.setattr(reliability.os, "_exit", leave)
    yield watchdog, exits
    watchdog.stop(None)
    own_fleet.pool.redis.delete("gpu")


def test_a_worker_that_takes_no_messages_is_ended(own_fleet: Fleet, quiet_worker):
    watchdog, exits = quiet_worker
    own_fleet.call("pnl.mark_to_market")
    watchdog.start(None)
    eventually(lambda: exits)
    assert exits == [EXIT_QUIET]


def test_a_worker_with_nothing_to_take_or_something_to_do_is_left_alone(
    own_fleet: Fleet, quiet_worker, monkeypatch: pytest.MonkeyPatch
):
    watchdog, exits = quiet_worker
    looks: list[int] = []
    monkeypatch.setattr(watchdog, "_waiting_messages", lambda: looks.append(1) or 0)
    watchdog.start(None)
    eventually(lambda: len(looks) > 20)
    monkeypatch.setattr(state, "active_requests", ["a running task"])
    monkeypatch.setattr(watchdog, "_waiting_messages", lambda: 5)
    monkeypatch.setattr(reliability, "_busy", lambda busy=reliability._busy: looks.append(1) or busy())
    eventually(lambda: len(looks) > 40)
    assert exits == []


def test_a_worker_whose_queue_never_empties_is_left_alone_while_it_takes_messages(
    own_fleet: Fleet, quiet_worker, monkeypatch: pytest.MonkeyPatch
):
    watchdog, exits = quiet_worker
    taken: Counter[str] = Counter()
    monkeypatch.setattr(state, "total_count", taken)
    monkeypatch.setattr(watchdog, "_waiting_messages", lambda: taken.update(["a task"]) or 5)
    watchdog.start(None)
    eventually(lambda: taken.total() > 20)
    assert exits == []
