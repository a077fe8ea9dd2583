"""What a client learns of its commands from the store, without its threads and without a fleet."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.loose_trades import buy
from tradepool import commanding, wire
from tradepool.client.applied_ids import names
from tradepool.client.confirmation import Confirmation
from tradepool.client.look import take_look
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry
from tradepool.errors import Fenced, InvalidTokens
from tradepool.model.commands import Command
from tradepool.model.ids import SHORT_ID_CHARS, derive_id, short_id
from tradepool.model.ledger import ledger_id, reservation_id
from tradepool.store.answers import refused
from tradepool.store.asking import ask_all
from tradepool.store.fence import open_fence
from tradepool.store.watermark import watermark_text

OF_A_MESSAGE = 80
"""More than a record remembers."""


def entries_of(commands: Sequence[Command], record_id: str, user_id: str | None = "ann") -> list[SpoolEntry]:
    return [
        SpoolEntry(n, c.command_id, wire.QUEUE_TOKENS, record_id, user_id) for n, c in enumerate(commands)
    ]


def reserve(key: str) -> Command:
    return commanding.reserve_tokens("ann", "USDT", 1, key, 60, account_id="default")


def fund() -> Command:
    return commanding.update_available_tokens(
        "ann", {"USDT": 1000}, as_of=None, account_id="default", complete=False
    )


def sent_together(entries: Sequence[SpoolEntry]) -> dict[str, list[Message]]:
    return {entries[0].queue: [Message(len(entries), list(entries))]}


def found_by(confirmation: Confirmation, entries: Sequence[SpoolEntry]) -> dict[int, bool]:
    """The entries that were found to have ended, and whether they came too late."""
    assert confirmation.check(sent_together(entries)) == [], "no journal runs here"
    return {seq: noted.is_stale for seq, noted in confirmation._applied.items()}


def test_more_of_one_account_than_its_ledger_remembers_are_all_found(core, store, redis_client):
    commands = [fund()]
    for number in range(OF_A_MESSAGE // 2):
        settle = commanding.settle_tokens(reservation_id("ann", "default", f"k{number}"), 1, None)
        commands += [reserve(f"k{number}"), settle]
    assert {receipt.outcome for receipt in core.apply(commands, task_id="t")} == {"applied"}
    entries = entries_of(commands, ledger_id("ann"))
    assert found_by(Confirmation(redis_client, store), entries) == dict.fromkeys(range(len(commands)), False)
    core.apply(commands, task_id="delivered again")
    assert found_by(Confirmation(redis_client, store), entries) == dict.fromkeys(range(len(commands)), False)


def test_more_of_one_trade_than_it_remembers_are_all_found(core, store, redis_client):
    core.apply([commanding.add_trade(buy(trade_id="t1", user_id="ann"))])
    commands = [
        commanding.update_trade("t1", {"strategy": f"s{number}"}, expected_version=None)
        for number in range(OF_A_MESSAGE)
    ]
    assert {receipt.outcome for receipt in core.apply(commands, task_id="t")} == {"applied"}
    assert len(found_by(Confirmation(redis_client, store), entries_of(commands, "t1", None))) == OF_A_MESSAGE
    assert len(list(redis_client.scan_iter("tp:answer:*"))) < OF_A_MESSAGE - 30, "the last are in the record"


def test_a_reserve_whose_key_is_used_up_is_told_from_one_that_holds(core, store, redis_client):
    first = reserve("k")
    release = commanding.release_tokens(reservation_id("ann", "default", "k"))
    again, other = reserve("k"), reserve("other")
    commands = [fund(), first, release, again, other]
    core.apply(commands, task_id="t")
    core.apply([first], task_id="delivered again")
    entries = entries_of(commands, ledger_id("ann"))
    is_late = found_by(Confirmation(redis_client, store), entries)
    assert is_late == {0: False, 1: False, 2: False, 3: True, 4: False}


def test_what_was_refused_and_applied_later_counts_as_applied(core, store, redis_client):
    command = reserve("k")
    (refusal,) = core.apply([command])
    core.refuse(command, refusal)
    core.apply([fund(), command], task_id="replayed")
    assert found_by(Confirmation(redis_client, store), entries_of([command], ledger_id("ann"))) == {0: False}


def test_a_trade_is_confirmed_while_others_keep_committing_to_its_shard(core, store, redis_client):
    confirmation = Confirmation(redis_client, store)
    core.apply([commanding.add_trade(buy(trade_id="t0", user_id="ann"))])
    assert confirmation.is_journaled(["t0", "never-sent"]) == {"t0": False, "never-sent": False}
    for number in range(1, 4):
        # The journal is always one commit behind the shard.
        journaled = store.last_positions()
        core.apply([commanding.add_trade(buy(trade_id=f"t{number}", user_id="ann"))])
        publish(store, redis_client, journaled)
        assert confirmation.is_journaled(["t0"]) == {"t0": True}
        assert not confirmation.is_journaled([f"t{number}"])[f"t{number}"]


def test_a_trade_is_there_as_soon_as_the_store_has_it(core, store, redis_client):
    core.apply([commanding.add_trade(buy(trade_id="t1", user_id="ann"))])
    confirmation = Confirmation(redis_client, store)
    assert confirmation.is_journaled(["t1"]) == {"t1": False}
    names_its_shard = derive_id("ann", at_us=0, seed="t2")
    found = [confirmation.has(trade_id) for trade_id in ("t1", "t2", names_its_shard)]
    assert found == [True, False, False]


def test_what_was_seen_before_a_recovery_confirms_nothing(core, store, redis_client):
    confirmation = Confirmation(redis_client, store)
    core.apply([commanding.add_trade(buy(trade_id="t0", user_id="ann"))])
    assert confirmation.is_journaled(["t0"]) == {"t0": False}
    positions = store.last_positions()
    shard = store.keys.shard_of_user("ann")
    redis_client.delete(*redis_client.keys(f"tp:{{{shard:02x}}}:*"))
    open_fence(redis_client)
    publish(store, redis_client, positions)
    assert confirmation.is_journaled(["t0"]) == {"t0": False}


def publish(store, redis_client, positions: Sequence[str]) -> None:
    """Say that the journal has come as far as `positions`."""
    told = {
        store.keys.journal_field(shard): watermark_text(at, "0" * 16, 0) for shard, at in enumerate(positions)
    }
    redis_client.hset(store.keys.journal, mapping=told)


def commands_of(redis_client) -> int:
    """How many commands the server has done."""
    return int(redis_client.info("stats")["total_commands_processed"])


def test_while_nothing_moves_a_look_costs_two_commands_whatever_is_under_way(store, redis_client):
    confirmation = Confirmation(redis_client, store)
    under_way = sent_together([SpoolEntry(n, f"c-{n}", "trades", f"t-{n}", "ann") for n in range(3)])
    for _ in under_way["trades"][0].waiting:
        assert confirmation.check(under_way) == []
    before = commands_of(redis_client)
    assert confirmation.check(under_way) == []
    assert commands_of(redis_client) - before == 2 + 1, "and the look at the numbers themselves"


def test_a_refusal_is_noticed_though_no_shard_moves(core, store, redis_client):
    confirmation = Confirmation(redis_client, store)
    command = commanding.close_trade("nobody", "1", fee=0, fee_currency=None, amount=None, at=None)
    under_way = sent_together(entries_of([command], "nobody", None))
    assert [confirmation.check(under_way) for _ in range(2)] == [[], []]
    (refusal,) = core.apply([command])
    core.refuse(command, refusal)
    (finished,) = confirmation.check(under_way)
    assert finished.rejection.error == "UnknownTrade"


def test_an_answer_that_nobody_counted_is_found_by_the_sweep(store, redis_client, monkeypatch):
    confirmation = Confirmation(redis_client, store)
    under_way = sent_together(entries_of([reserve("k")], ledger_id("ann")))
    assert confirmation.check(under_way) == []
    (entry,) = under_way[wire.QUEUE_TOKENS][0].waiting
    refusal = refused(InvalidTokens("no", field="key"))
    redis_client.set(store.keys.answer(short_id(entry.command_id)), refusal)
    assert confirmation.check(under_way) == []
    monkeypatch.setattr("tradepool.client.confirmation.SWEEP_EVERY_S", 0)
    assert [one.rejection.error for one in confirmation.check(under_way)] == ["InvalidTokens"]


def test_what_was_found_before_a_recovery_is_looked_up_again(core, store, redis_client):
    confirmation = Confirmation(redis_client, store)
    add = commanding.add_trade(buy(trade_id="t0", user_id="ann"))
    core.apply([add])
    entries = entries_of([add], "t0")
    assert found_by(confirmation, entries) == {0: False}
    positions = store.last_positions()
    redis_client.delete(*redis_client.keys(f"tp:{{{store.keys.shard_of_user('ann'):02x}}}:*"))
    open_fence(redis_client)
    publish(store, redis_client, positions)
    assert confirmation.check(sent_together(entries)) == []
    core.apply([add])
    publish(store, redis_client, store.last_positions())
    assert [one.entry.command_id for one in confirmation.check(sent_together(entries))] == [add.command_id]


def test_a_server_that_waits_for_its_recovery_is_told(store, redis_client, monkeypatch):
    confirmation = Confirmation(redis_client, store)
    under_way = sent_together(entries_of([reserve("k")], ledger_id("ann")))
    assert confirmation.check(under_way) == []
    redis_client.script_flush()
    monkeypatch.setattr("tradepool.client.confirmation.SWEEP_EVERY_S", 0)
    with pytest.raises(Fenced):
        confirmation.check(under_way)


def test_a_command_is_not_taken_for_one_whose_id_stands_across_two_of_a_record():
    ours, other = "ab" * (SHORT_ID_CHARS // 2), "ba" * (SHORT_ID_CHARS // 2)
    assert not names(ours[1:] + ours[:1], ours)
    assert not names("x" + ours + "y" * (SHORT_ID_CHARS - 1), ours)
    assert names(other + ours, ours)
    assert names(ours[: SHORT_ID_CHARS // 2] * 2 + ours, ours)
    assert not names("", ours)


def test_a_look_that_a_recovery_comes_into_belongs_to_the_later_generation(store, redis_client, monkeypatch):
    def ask_with_a_recovery_in_between(client, commands):
        first, second = commands
        answers = ask_all(client, [first])
        open_fence(redis_client)
        return answers + ask_all(client, [second])

    monkeypatch.setattr("tradepool.client.look.ask_all", ask_with_a_recovery_in_between)
    assert take_look(redis_client, store.keys).generation == store.generation()


def test_answers_are_counted_when_they_can_be_found(store, redis_client, monkeypatch):
    count = redis_client.hincrby

    def count_what_is_there(*arguments):
        assert store.answers(["aa", "bb"]) == ["stale", "duplicate"]
        return count(*arguments)

    monkeypatch.setattr(redis_client, "hincrby", count_what_is_there)
    before = take_look(redis_client, store.keys)
    store.put_answers({"aa": "stale", "bb": "duplicate"})
    assert take_look(redis_client, store.keys).answered != before.answered
