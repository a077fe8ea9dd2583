"""What the store remembers of the trades that a user's last commits have changed, on a real server."""

from __future__ import annotations

import random
import threading

import pytest

from tests.store_changes import archiving, cancelled, change, filled, ledger_change, new_trade
from tradepool.store.changed_ids import Changes, appended, ids_in
from tradepool.store.fence import open_fence, void_generation

USER = "ann"
KEPT = 640 // 37
"""Changes that are kept of every user, at least."""


@pytest.fixture
def shard(store):
    return store.keys.shard_of_user(USER)


def add(store, count, user=USER):
    """As many trades of the user, each in a commit of its own; their ids."""
    trades = [new_trade(user) for _ in range(count)]
    for trade in trades:
        store.commit(store.keys.shard_of_user(user), [change(None, trade)])
    return [trade.trade_id for trade in trades]


def test_a_revision_is_another_after_each_commit_that_touches_the_user(store, shard):
    seen = {store.revision(USER)}
    trade, ledger = new_trade(USER), ledger_change(USER, None, b"{}")
    for steps in (
        [change(None, trade)],
        [ledger],
        [change(trade, cancelled(trade))],
        [archiving(cancelled(trade))],
    ):
        store.commit(shard, steps)
        seen.add(store.revision(USER))
    assert len(seen) == 5
    before = store.revision(USER)
    add(store, 1, "bob")
    assert store.revision(USER) == before
    numbers = store.revisions([USER, "bob", "nobody"])
    assert numbers[USER] > numbers["bob"] > numbers["nobody"] == 0


def test_what_changed_since_is_named_once_the_last_changed_one_last(store, shard):
    first, second, third = (new_trade(USER) for _ in range(3))
    store.commit(shard, [change(None, first), change(None, second)])
    seen = store.revision(USER)
    assert store.changes_since(USER, seen) == Changes(revision=seen, trade_ids=())
    store.commit(shard, [change(first, filled(first)), change(None, third)])
    store.commit(shard, [ledger_change(USER, None, b"{}")])
    store.commit(shard, [change(second, cancelled(second))])
    gone = cancelled(second)
    store.commit(shard, [change(third, cancelled(third)), archiving(gone)])
    found = store.changes_since(USER, seen)
    assert found == Changes(
        revision=store.revision(USER), trade_ids=(first.trade_id, third.trade_id, second.trade_id)
    )
    assert store.changes_since(USER, found.revision).trade_ids == ()


def test_the_first_changes_of_a_user_are_known_from_the_beginning(store):
    seen = store.revision(USER)
    assert store.changes_since(USER, seen) == Changes(revision=seen, trade_ids=())
    ids = add(store, 3)
    assert store.changes_since(USER, seen).trade_ids == tuple(ids)


def test_at_least_the_last_changes_are_known_and_what_is_forgotten_is_said_to_be(store, redis_client, shard):
    seen, ids = [store.revision(USER)], []
    for _ in range(4 * KEPT):
        ids += add(store, 1)
        seen.append(store.revision(USER))
        known = store.changes_since(USER, seen[-KEPT - 1 :][0])
        assert known.trade_ids == tuple(ids[-KEPT:])
    for ago, revision in enumerate(reversed(seen)):
        found = store.changes_since(USER, revision)
        assert found is None or found.trade_ids == tuple(ids[len(ids) - ago :])
    assert store.changes_since(USER, seen[0]) is None
    assert store.revisions([USER]) == {USER: 37 * len(ids)}
    assert redis_client.strlen(store.keys.changed(shard, USER)) <= 2 * 640 + 256 + 37


def test_what_is_cut_off_in_the_middle_of_a_commit_is_unknown(store, shard):
    seen, trades = [store.revision(USER)], [new_trade(USER, trade_id=f"{number:03}") for number in range(400)]
    for trade in trades:
        store.commit(shard, [change(None, trade)])
        seen.append(store.revision(USER))
    known = [store.changes_since(USER, revision) for revision in seen]
    first = known.count(None)
    assert 400 - 2 * 640 // 4 <= first <= 400 - 640 // 4
    for number, found in enumerate(known[first:], first):
        assert found.trade_ids == tuple(trade.trade_id for trade in trades[number:])


def test_a_user_with_many_changes_has_more_of_them_remembered(store, redis_client, shard):
    batches = [[new_trade(USER) for _ in range(500)] for _ in range(8)]
    for batch in batches:
        seen = store.revision(USER)
        store.commit(shard, [change(None, trade) for trade in batch])
    add(store, 20)
    assert store.changes_since(USER, seen) is None
    assert redis_client.strlen(store.keys.changed(shard, USER)) >= 4000 * 37 // 16
    at_once = 4096 // 37
    seen, ids = [store.revision(USER)], []
    for _ in range(at_once + 2):
        ids += add(store, 1)
        seen.append(store.revision(USER))
    for before in range(4):
        assert store.changes_since(USER, seen[before]).trade_ids == tuple(ids[before:])


def test_a_commit_of_more_trades_than_are_kept_is_known_until_the_next(store, shard):
    seen = store.revision(USER)
    trades = [new_trade(USER) for _ in range(900)]
    store.commit(shard, [change(None, trade) for trade in trades])
    assert store.changes_since(USER, seen).trade_ids == tuple(trade.trade_id for trade in trades)
    add(store, 20)
    assert store.changes_since(USER, seen) is None


def test_changes_of_another_generation_are_unknown(store, redis_client):
    seen = store.revision(USER)
    add(store, 2)
    open_fence(redis_client)
    assert store.revision(USER) != seen
    assert store.changes_since(USER, seen) is None


def test_what_recovery_writes_is_no_state_that_was_seen_before(store, redis_client, shard):
    add(store, 2)
    seen = store.revision(USER)
    void_generation(redis_client)
    store.restore(shard, [change(None, new_trade(USER))])
    assert store.revision(USER) != seen
    assert store.changes_since(USER, seen) is None
    open_fence(redis_client)
    seen = store.revision(USER)
    ids = add(store, 2)
    assert store.changes_since(USER, seen).trade_ids == tuple(ids)


@pytest.mark.parametrize("seed", range(3))
def test_changes_since_any_revision_are_those_that_were_made(store, seed):
    """Two users of one pool, commits of many sizes, and every revision that was ever seen."""
    dice = random.Random(seed)
    users = {"ann": [], "bob": []}
    seen = {user: [store.revision(user)] for user in users}
    changed = {user: [] for user in users}
    for _ in range(60):
        user = dice.choice(list(users))
        steps = [_step(dice, users[user], user) for _ in range(dice.choice((1, 1, 1, 2, 40)))]
        store.commit(store.keys.shard_of_user(user), steps)
        changed[user].append(dict.fromkeys(step.record_id for step in steps))
        seen[user].append(store.revision(user))
    for user, revisions in seen.items():
        known = [store.changes_since(user, revision) for revision in revisions]
        for number, found in enumerate(known):
            made = [trade_id for ids in changed[user][number:] for trade_id in ids]
            assert found is None or found.trade_ids == ids_in(appended(made))
        assert known[-1] is not None


def test_who_follows_the_changes_has_the_same_trades_as_who_reads_them_all(store, shard):
    followed = {}
    revision = store.revision(USER)

    def follow(revision):
        found = store.changes_since(USER, revision)
        reached = store.revision(USER) if found is None else found.revision
        ids = list(store.user_trade_ids(USER)) if found is None else found.trade_ids
        followed.update(zip(ids, store.read([(shard, trade_id) for trade_id in ids]), strict=True))
        return reached

    def trade():
        for _ in range(60):
            made = new_trade(USER)
            store.commit(shard, [change(None, made)])
            store.commit(shard, [change(made, cancelled(made))])

    bots = [threading.Thread(target=trade) for _ in range(3)]
    for bot in bots:
        bot.start()
    while any(bot.is_alive() for bot in bots):
        revision = follow(revision)
    for bot in bots:
        bot.join()
    follow(revision)
    ids = list(store.user_trade_ids(USER))
    assert followed == dict(zip(ids, store.read([(shard, trade_id) for trade_id in ids]), strict=True))


def _step(dice, trades, user):
    """A new trade, or one more version of one that is there."""
    if trades and dice.random() < 0.5:
        at = dice.randrange(len(trades))
        before, trades[at] = trades[at], cancelled(trades[at])
        return change(before, trades[at])
    trades.append(new_trade(user))
    return change(None, trades[-1])
