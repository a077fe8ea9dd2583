"""More commands of one shard than one commit takes: in steps, in order, also when others are faster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from tests.loose_trades import buy
from tests.store_changes import change
from tradepool import core as core_module
from tradepool.commanding import new_command_id
from tradepool.core import TradeCore
from tradepool.errors import VersionConflict
from tradepool.model.codec import unpack_trade
from tradepool.model.commands import AddTrade, UpdateTrade
from tradepool.model.ids import short_id
from tradepool.model.trade import Trade
from tradepool.settings import Durability, Settings
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark

AS_OF = 1_750_000_000_000_000


class Contended(RedisStore):
    """A store in which `first` happens before each commit, as another writer's would."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.first: Callable[[], None] = lambda: None
        self.sizes: list[int] = []
        self.asked: list[str] = []

    def read(self, records):
        self.asked += [record_id for _, record_id in records]
        return super().read(records)

    def commit_all(self, changes):
        self.first()
        self.sizes += map(len, changes.values())
        return super().commit_all(changes)


@pytest.fixture
def contended(redis_client, settings):
    return Contended(redis_client, Keys(settings.shard_count), settings)


@pytest.fixture
def core(contended, redis_client):
    settings = Settings(durability=Durability.REDIS, batch_max=2, commit_attempts_max=3)
    return TradeCore(contended, Watermark(redis_client, contended.keys, listens=False), settings)


def add(trade_id: str, user_id: str = "ann") -> AddTrade:
    trade = buy(trade_id=trade_id, user_id=user_id)
    return AddTrade(command_id=new_command_id(), as_of=AS_OF, trade=trade)


def named(trade_id: str, number: int) -> UpdateTrade:
    changes = {"strategy": f"s{number}"}
    return UpdateTrade(command_id=new_command_id(), as_of=AS_OF + number, trade_id=trade_id, changes=changes)


def stored(store: RedisStore, trade_id: str) -> Trade:
    return unpack_trade(store.read([(store.shard_of_trade(trade_id), trade_id)])[0])


def be_faster(store: RedisStore) -> None:
    """Another writer's change of t1."""
    before = stored(store, "t1")
    after = msgspec.structs.replace(before, version=before.version + 1, strategy=f"v{before.version}")
    store.commit(store.shard_of_trade("t1"), [change(before, after)])


def test_commands_of_one_shard_are_committed_in_order_however_many_there_are(core, contended):
    receipts = core.apply([add("t1"), *(named("t1", n) for n in range(1, 6)), add("t2")])
    versions = [(receipt.trade_id, receipt.version) for receipt in receipts]
    assert versions == [*(("t1", n) for n in range(1, 7)), ("t2", 1)]
    assert contended.sizes == [2, 2, 2, 1]
    assert stored(contended, "t1").strategy == "s5"
    positions = [receipt.position for receipt in receipts]
    assert positions == sorted(positions)
    assert len(set(positions)) == 4


def test_what_follows_a_lost_commit_in_its_shard_waits_for_it(core, contended):
    core.apply([add("t1"), add("other", "bob")])
    assert contended.shard_of_trade("t1") != contended.shard_of_trade("other")

    def once() -> None:
        contended.first = lambda: None
        be_faster(contended)

    contended.first = once
    receipts = core.apply([named("t1", n) for n in range(1, 5)] + [named("other", n) for n in range(1, 4)])
    assert [receipt.version for receipt in receipts] == [3, 4, 5, 6, 2, 3, 4]
    assert [stored(contended, trade_id).strategy for trade_id in ("t1", "other")] == ["s4", "s3"]


def test_an_add_that_lost_is_not_taken_for_made_by_the_commands_after_it(core, contended):
    """t1 is added by another while the wave with its add is under way; its updates come in the next."""
    fastest = add("t1")

    def once() -> None:
        contended.first = lambda: None
        core.apply([fastest])

    contended.first = once
    receipts = core.apply([add("t1"), named("t1", 1), named("t1", 2), named("t1", 3)])
    assert [receipt.outcome for receipt in receipts] == ["duplicate", "applied", "applied", "applied"]
    assert [receipt.version for receipt in receipts] == [1, 2, 3, 4]


def test_a_new_add_is_not_looked_for_and_its_repeat_is_found_all_the_same(core, contended):
    command = AddTrade(command_id=new_command_id(), as_of=AS_OF, trade=buy())
    (added,) = core.apply([command])
    assert contended.asked == []
    again, new = core.apply([command, AddTrade(command_id=new_command_id(), as_of=AS_OF, trade=buy())])
    assert (again.outcome, again.trade_id, again.version) == ("duplicate", added.trade_id, 1)
    assert (new.outcome, new.version) == ("applied", 1)
    assert added.trade_id in contended.asked


def test_a_new_trade_is_looked_for_where_a_command_beside_its_add_means_it(core, contended):
    command = AddTrade(command_id=new_command_id(), as_of=AS_OF, trade=buy())
    (added,) = core.apply([command])
    changed, again = core.apply([named(added.trade_id, 1), command])
    assert (changed.outcome, changed.version) == ("applied", 2)
    assert (again.outcome, again.version) == ("duplicate", 2)


def test_a_long_list_is_begun_no_further_ahead_than_a_few_windows(core, monkeypatch):
    """What is committed and not finished is held in memory, with all its receipts."""
    under_way, most = [0], [0]
    begin, finish = core._begin, core._finish

    def counted_begin(*given):
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        return begin(*given)

    def counted_finish(begun):
        under_way[0] -= 1
        return finish(begun)

    monkeypatch.setattr(core, "_begin", counted_begin)
    monkeypatch.setattr(core, "_finish", counted_finish)
    monkeypatch.setattr(core_module, "WINDOW", 2)
    receipts = core.apply([add(f"t{n}") for n in range(20)] + [add("t0")], task_id="task")
    assert [receipt.trade_id for receipt in receipts] == [*(f"t{n}" for n in range(20)), "t0"]
    assert receipts[-1].outcome == "duplicate"
    assert most == [core_module.BATCHES_AHEAD_MAX + 1]
    assert under_way == [0]


def test_the_answers_of_every_window_are_left(core, contended, monkeypatch):
    monkeypatch.setattr(core_module, "WINDOW", 2)
    commands = [add("t1"), add("t2"), add("t3"), add("t4")]
    core.apply(commands, task_id="task")
    again = [msgspec.structs.replace(command, command_id=new_command_id()) for command in commands]
    core.apply(again, task_id="task")
    assert contended.answers([short_id(command.command_id) for command in again]) == ["duplicate"] * 4


def test_races_lost_again_and_again_end_in_a_conflict(core, contended):
    core.apply([add("t1")])
    contended.first = lambda: be_faster(contended)
    with pytest.raises(VersionConflict, match="lost 3 races"):
        core.apply([named("t1", 1)])


def test_ids_of_commands_differ_also_after_a_fork():
    program = (
        "import os; from tradepool.commanding import new_command_id as new; new();"
        "child = os.fork(); child and os.wait(); print(*[new() for _ in range(500)])"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ids = made.stdout.split()
    assert len(ids) == len(set(ids)) == 1000
    assert {len(given) for given in ids} == {32}
