"""Calls that several threads make at a time are made together, and no caller can tell."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.waiting import eventually
from tradepool.errors import StoreUnavailable
from tradepool.grouping import Grouping

SIZE_MAX = 4


class Kitchen:
    """What makes the calls: texts, of which each is made upper case. A step can be held up."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.may_begin = threading.Event()
        self.may_finish = threading.Event()
        self.may_begin.set()
        self.may_finish.set()
        self.problem: Callable[[Sequence[str]], Exception | None] = lambda _: None
        self.grouping = Grouping(self.begin, self.finish, size_of=len, size_max=SIZE_MAX)

    def begin(self, calls: Sequence[str]) -> Sequence[str]:
        self.begun.append(list(calls))
        assert self.may_begin.wait(10)
        if problem := self.problem(calls):
            raise problem
        return calls

    def finish(self, begun: Sequence[str]) -> Sequence[str]:
        assert self.may_finish.wait(10)
        return [call.upper() for call in begun]

    def waiting(self) -> int:
        return len(self.grouping._waiting)


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


@pytest.fixture
def threads(kitchen: Kitchen) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool
        kitchen.may_begin.set()
        kitchen.may_finish.set()


def call_one_after_another(
    kitchen: Kitchen, threads: ThreadPoolExecutor, calls: Sequence[str]
) -> list[Future[str]]:
    """The first call is being begun when the others come, each after the one before it."""
    kitchen.may_begin.clear()
    begun = len(kitchen.begun)
    futures = [threads.submit(kitchen.grouping.make, calls[0])]
    eventually(lambda: len(kitchen.begun) > begun)
    for number, call in enumerate(calls[1:], start=1):
        futures.append(threads.submit(kitchen.grouping.make, call))
        eventually(lambda number=number: kitchen.waiting() == number)
    kitchen.may_begin.set()
    return futures


def test_a_call_that_comes_alone_is_made_at_once(kitchen):
    assert kitchen.grouping.make("a") == "A"
    assert kitchen.begun == [["a"]]


def test_what_comes_while_others_are_under_way_is_begun_together_in_its_order(kitchen, threads):
    futures = call_one_after_another(kitchen, threads, ["a", "b", "c", "d"])
    assert [future.result(10) for future in futures] == ["A", "B", "C", "D"]
    assert kitchen.begun == [["a"], ["b", "c", "d"]]


def test_a_group_is_no_larger_than_its_bound_and_a_larger_call_is_made_by_itself(kitchen, threads):
    calls = ["a", "bb", "c", "ddddd", "e"]
    futures = call_one_after_another(kitchen, threads, calls)
    assert [future.result(10) for future in futures] == [call.upper() for call in calls]
    assert kitchen.begun == [["a"], ["bb", "c"], ["ddddd"], ["e"]]


def test_the_next_group_is_begun_while_the_one_before_it_waits_to_be_finished(kitchen, threads):
    kitchen.may_finish.clear()
    futures = call_one_after_another(kitchen, threads, ["a", "b"])
    eventually(lambda: kitchen.begun == [["a"], ["b"]])
    assert not any(future.done() for future in futures)
    kitchen.may_finish.set()
    assert [future.result(10) for future in futures] == ["A", "B"]


def test_the_fault_of_one_call_fails_no_other(kitchen, threads):
    kitchen.problem = lambda calls: ValueError("bad") if "bad" in calls else None
    good, first, bad, last = call_one_after_another(kitchen, threads, ["x", "y", "bad", "z"])
    assert [future.result(10) for future in (good, first, last)] == ["X", "Y", "Z"]
    with pytest.raises(ValueError, match="bad"):
        bad.result(10)
    assert kitchen.grouping.make("after") == "AFTER"


def test_of_a_service_that_is_away_all_learn_at_once(kitchen, threads):
    kitchen.problem = lambda calls: None if calls == ["a"] else StoreUnavailable("away")
    first, *others = call_one_after_another(kitchen, threads, ["a", "b", "c"])
    assert first.result(10) == "A"
    for other in others:
        with pytest.raises(StoreUnavailable):
            other.result(10)
    assert kitchen.begun == [["a"], ["b", "c"]]


def test_a_leader_that_is_torn_away_leaves_nobody_waiting(kitchen, threads):
    """SystemExit is no error that a call may have; the others are made all the same."""
    torn = [SystemExit(1)]
    kitchen.problem = lambda calls: torn.pop() if calls == ["b", "c"] and torn else None
    first, leader, other = call_one_after_another(kitchen, threads, ["a", "b", "c"])
    assert (first.result(10), other.result(10)) == ("A", "C")
    with pytest.raises(SystemExit):
        leader.result(10)


@pytest.fixture
def torn() -> Iterator[threading.Event]:
    """Whether Control-C has torn the main thread away, which it does once, however often it comes."""
    is_torn = threading.Event()

    def tear_once(*_: object) -> None:
        if not is_torn.is_set():
            is_torn.set()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, tear_once)
    yield is_torn
    signal.signal(signal.SIGINT, before)


def test_who_is_torn_away_while_it_waits_leaves_nobody_waiting(kitchen, threads, torn):
    """Control-C in a bot's main thread, whose other threads go on."""
    kitchen.may_begin.clear()
    first = threads.submit(kitchen.grouping.make, "a")
    eventually(lambda: kitchen.begun)

    def tear() -> None:
        eventually(lambda: kitchen.waiting() == 1)
        # One that comes between Python's last look and the wait itself does not end the wait.
        eventually(lambda: torn.is_set() or signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))

    tearing = threads.submit(tear)
    with pytest.raises(KeyboardInterrupt):
        kitchen.grouping.make("torn")
    tearing.result(10)
    others = [threads.submit(kitchen.grouping.make, "b")]
    eventually(lambda: kitchen.waiting() == 1)
    kitchen.may_begin.set()
    assert [future.result(10) for future in (first, *others)] == ["A", "B"]
    assert kitchen.begun == [["a"], ["b"]]


def test_a_leader_that_is_torn_away_while_it_gathers_leaves_nobody_waiting(kitchen, threads):
    def size_of(call: str) -> int:
        if call == "b" and kitchen.waiting() == 2 and tears:
            raise tears.pop()
        return len(call)

    tears = [SystemExit(1)]
    kitchen.grouping = Grouping(kitchen.begin, kitchen.finish, size_of=size_of, size_max=SIZE_MAX)
    first, leader, other = call_one_after_another(kitchen, threads, ["a", "b", "c"])
    assert (first.result(10), other.result(10)) == ("A", "C")
    with pytest.raises(SystemExit):
        leader.result(10)


def test_a_call_from_within_another_does_not_wait_for_it(kitchen):
    inner: list[str] = []

    def call_inside(calls: Sequence[str]) -> None:
        if calls == ["out"]:
            inner.append(kitchen.grouping.make("in"))

    kitchen.problem = call_inside
    assert kitchen.grouping.make("out") == "OUT"
    assert inner == ["IN"]


def test_a_fork_does_not_wait_for_a_leader_that_it_does_not_have(kitchen, threads):
    kitchen.may_begin.clear()
    leader = threads.submit(kitchen.grouping.make, "a")
    eventually(lambda: kitchen.begun)
    if not (child := os.fork()):
        signal.alarm(10)
        kitchen.may_begin = threading.Event()
        kitchen.may_begin.set()
        os._exit(kitchen.grouping.make("b") != "B")
    assert os.waitpid(child, 0)[1] == 0
    kitchen.may_begin.set()
    assert leader.result(10) == "A"


def test_a_fork_begins_anew_before_it_has_threads_that_could_each_do_so(kitchen, threads):
    kitchen.may_begin.clear()
    futures = [threads.submit(kitchen.grouping.make, "a")]
    eventually(lambda: kitchen.begun)
    futures.append(threads.submit(kitchen.grouping.make, "b"))
    eventually(lambda: kitchen.waiting() == 1)
    if not (child := os.fork()):
        os._exit(kitchen.waiting())
    assert os.waitpid(child, 0)[1] == 0
    kitchen.may_begin.set()
    assert [future.result(10) for future in futures] == ["A", "B"]
