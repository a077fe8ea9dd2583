"""The thread that keeps a book ready: it waits for the pool, follows, saves, and outlives every failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import structlog

from tests.waiting import eventually
from tradepool.errors import ChecksumMismatch, Fenced, ResourceUnavailable, StoreUnavailable
from tradepool.marking import keeper as keeping
from tradepool.marking.keeper import BookKeeper
from tradepool.marking.service import Readiness

NEVER_S = 1e6


class FakeMarking:
    """Counts what is asked of it, and raises what is in `failures` first."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failures: dict[str, list[Exception]] = {}
        self.going_on = threading.Event()
        self.going_on.set()

    def catch_up(self) -> bool:
        self._called("catch_up")
        return True

    def prepare(self) -> Readiness:
        self._called("prepare")
        return Readiness("numpy", "as set", 3)

    def save_book(self) -> bool:
        self._called("save_book")
        return True

    def check_book(self) -> SimpleNamespace:
        self._called("check_book")
        return SimpleNamespace(rows=3, different=0)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.going_on.wait(30)
        if self.failures.get(name):
            raise self.failures[name].pop(0)


@pytest.fixture
def marking() -> FakeMarking:
    return FakeMarking()


@pytest.fixture
def keep(marking: FakeMarking, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BookKeeper]]:
    """Starts a keeper with short pauses."""
    for pause in ("FOLLOW_EVERY_S", "IDLE_EVERY_S", "PAUSE_MIN_S"):
        monkeypatch.setattr(keeping, pause, 0.001)
    monkeypatch.setattr(keeping, "PAUSE_MAX_S", 0.002)
    started: list[BookKeeper] = []

    def start(connect: Callable[[], FakeMarking] = lambda: marking, save_every_s: float = NEVER_S):
        started.append(BookKeeper(connect, save_every_s=save_every_s))
        started[-1].start()
        return started[-1]

    yield start
    marking.going_on.set()
    for keeper in started:
        keeper.stop()


def test_the_book_is_built_then_followed_and_saved_at_the_end(marking: FakeMarking, keep):
    with structlog.testing.capture_logs() as logs:
        keeper = keep()
        assert keeper.wait_tried(30)
        eventually(lambda: marking.calls.count("catch_up") > 3)
        keeper.stop()
    assert marking.calls[:3] == ["catch_up", "prepare", "catch_up"]
    assert (marking.calls.count("prepare"), marking.calls[-1]) == (1, "save_book")
    (ready,) = logs
    assert ready | {"seconds": 0} == {
        "event": "book ready",
        "log_level": "info",
        "backend": "numpy",
        "reason": "as set",
        "rows": 3,
        "seconds": 0,
    }


def test_a_book_is_saved_now_and_then(marking: FakeMarking, keep):
    keep(save_every_s=0.001)
    eventually(lambda: marking.calls.count("save_book") > 2)


def test_each_cause_of_a_failure_is_logged_once_and_none_ends_the_thread(marking: FakeMarking, keep):
    away = [StoreUnavailable("the server is away")] * 3
    damaged = [ChecksumMismatch("line 7 of the journal")] * 3
    marking.failures = {"catch_up": [*damaged, RuntimeError("a mistake")], "prepare": [OSError("disk")]}
    attempts: list[int] = []

    def connect() -> FakeMarking:
        attempts.append(1)
        if away:
            raise away.pop()
        return marking

    with structlog.testing.capture_logs() as logs:
        keeper = keep(connect)
        assert keeper.wait_tried(30)
        eventually(lambda: "catch_up" in marking.calls[8:])
    assert [line["event"] for line in logs] == [
        "the book waits for the pool to open",
        *["the book cannot be kept"] * 3,
        "book ready",
        "works again",
    ]
    assert [line["problem"].split(":")[0] for line in logs[1:4]] == [
        "ChecksumMismatch",
        "RuntimeError",
        "OSError",
    ]


def test_a_pool_that_is_away_is_a_failure_only_if_that_lasts_or_the_book_was_ready(
    marking: FakeMarking, keep, monkeypatch: pytest.MonkeyPatch
):
    away = [Fenced("recovery has not opened it yet")] * 3
    marking.failures = {"catch_up": [*away]}
    with structlog.testing.capture_logs() as at_start:
        keeper = keep()
        eventually(lambda: marking.calls.count("prepare") == 1)
        marking.failures = {"catch_up": [*away]}
        eventually(lambda: not marking.failures["catch_up"])
        eventually(lambda: at_start[-1]["event"] == "works again")
        keeper.stop()
    assert [(line["log_level"], line["event"]) for line in at_start] == [
        ("info", "the book waits for the pool to open"),
        ("info", "book ready"),
        ("error", "the book cannot be kept"),
        ("info", "works again"),
    ]
    monkeypatch.setattr(keeping, "START_S", 0.0)
    marking.failures = {"catch_up": [*away]}
    with structlog.testing.capture_logs() as lasting:
        keep()
        eventually(lambda: lasting and lasting[-1]["event"] == "works again")
    assert lasting[0]["event"] == "the book cannot be kept"


def test_a_disk_that_is_full_stops_the_saving_and_not_the_following(marking: FakeMarking, keep):
    marking.failures = {"save_book": [ResourceUnavailable("disk full")] * 5}
    with structlog.testing.capture_logs() as logs:
        keep(save_every_s=0.0)
        eventually(lambda: marking.calls.count("save_book") > 6)
    problems = [line["event"] for line in logs if line["log_level"] == "error"]
    assert problems == ["the book cannot be saved"]


def test_a_stop_does_not_wait_for_a_book_that_is_being_built(
    marking: FakeMarking, keep, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeping, "STOP_WAIT_S", 0.01)
    marking.going_on.clear()
    keeper = keep()
    eventually(lambda: marking.calls == ["catch_up"])
    assert not keeper.wait_tried(0)
    keeper.stop()
    assert marking.calls == ["catch_up"]


def test_a_check_runs_beside_the_following_and_one_at_a_time(marking: FakeMarking, keep):
    keeper = keep()
    keeper.wait_tried(30)
    marking.going_on.clear()
    assert keeper.check()
    eventually(lambda: "check_book" in marking.calls)
    assert not keeper.check()
    marking.going_on.set()
    before = len(marking.calls)
    eventually(lambda: len(marking.calls) > before + 3)
    marking.failures = {"check_book": [StoreUnavailable("away"), RuntimeError("a mistake")]}
    for expected in ("the book was not checked", "the book was not checked", "book checked"):
        with structlog.testing.capture_logs() as logs:
            eventually(keeper.check)
            eventually(lambda: logs)
        assert [line["event"] for line in logs] == [expected]
