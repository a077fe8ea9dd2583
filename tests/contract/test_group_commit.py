"""Commands that several threads of a process bring at a time are one commit, each with its own answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.loose_trades import buy
from tests.waiting import eventually
from tradepool.commanding import add_trade, new_command_id, update_trade
from tradepool.core import GROUPED_MAX
from tradepool.errors import Corrupt, InvalidTrade
from tradepool.model.commands import AddTrade
from tradepool.model.ids import short_id
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore


class Held(RedisStore):
    """A store whose commits wait until they may."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.commits: list[list[tuple[str, str]]] = []

    def commit_all(self, changes, *given):
        self.commits.append([(c.record_id, c.task_id) for of_shard in changes.values() for c in of_shard])
        assert self.may_commit.wait(10)
        return super().commit_all(changes, *given)


@pytest.fixture
def store(redis_client, settings):
    return Held(redis_client, Keys(settings.shard_count), settings)


@pytest.fixture
def threads(store) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool
        store.may_commit.set()


def apply_at_a_time(core, store, threads, calls: Sequence[Sequence[object]]) -> list[Future]:
    """The first call is being committed when the others come; each is task `t<number>`'s."""
    store.may_commit.clear()
    futures = []
    for number, commands in enumerate(calls):
        futures.append(threads.submit(core.apply, commands, task_id=f"t{number}"))
        if number:
            eventually(lambda number=number: len(core._grouping._waiting) == number)
        else:
            eventually(lambda: store.commits)
    store.may_commit.set()
    return futures


def adding(trade_id: str) -> AddTrade:
    return AddTrade(command_id=new_command_id(), as_of=0, trade=buy(trade_id=trade_id))


def test_commands_of_several_threads_are_one_commit_and_each_stays_its_tasks(core, store, threads):
    calls = [[adding(f"a{number}")] for number in range(4)]
    futures = apply_at_a_time(core, store, threads, calls)
    receipts = [future.result(10)[0] for future in futures]
    assert [receipt.trade_id for receipt in receipts] == ["a0", "a1", "a2", "a3"]
    assert store.commits == [[("a0", "t0")], [("a1", "t1"), ("a2", "t2"), ("a3", "t3")]]


def test_a_command_that_two_threads_bring_at_a_time_is_applied_once(core, store, threads, redis_client):
    same = adding("same")
    futures = apply_at_a_time(core, store, threads, [[adding("first")], [same], [same]])
    assert [future.result(10)[0].outcome for future in futures] == ["applied", "applied", "duplicate"]
    answered = redis_client.get(store.keys.answer(short_id(same.command_id)))
    assert answered is not None


def test_the_refusal_of_one_threads_command_is_nobody_elses(core, store, threads):
    refused = AddTrade(command_id=new_command_id(), as_of=0, trade=buy(trade_id="bad") | {"amount": "-1"})
    futures = apply_at_a_time(core, store, threads, [[adding("a")], [adding("b")], [refused], [adding("c")]])
    outcomes = [future.result(10)[0] for future in futures]
    assert isinstance(outcomes.pop(2), InvalidTrade)
    assert [receipt.trade_id for receipt in outcomes] == ["a", "b", "c"]


def test_a_record_that_cannot_be_read_stops_only_who_asked_for_it(core, store, threads, redis_client):
    core.apply([adding("broken")])
    shard = store.shard_of_trade("broken")
    redis_client.hset(store.keys.records(shard, store.keys.bucket_of("broken")), "broken", b"T" * 100)
    update = update_trade("broken", {"strategy": "s"}, expected_version=None)
    store.commits.clear()
    futures = apply_at_a_time(core, store, threads, [[adding("a")], [adding("b")], [update], [adding("c")]])
    assert [futures[n].result(10)[0].trade_id for n in (0, 1, 3)] == ["a", "b", "c"]
    with pytest.raises(Corrupt):
        futures[2].result(10)


def test_a_call_of_many_commands_has_a_commit_of_its_own(core, store, threads):
    store.may_commit.clear()
    small = threads.submit(core.apply, [adding("small")])
    eventually(lambda: len(store.commits) == 1)
    large = threads.submit(core.apply, [add_trade(buy()) for _ in range(GROUPED_MAX + 1)])
    eventually(lambda: len(store.commits) == 2)
    store.may_commit.set()
    assert len(small.result(10)) == 1
    assert len(large.result(10)) == GROUPED_MAX + 1
