"""Which ledgers have reservations to expire, on a real server."""

from __future__ import annotations

import pytest

from tests.store_changes import ledger_change

FAR_US = 2**53 + 1


@pytest.fixture
def shard(store):
    return store.keys.shard_of_user("ann")


def opened(user_id, at, before=None):
    """A change after which the first reservation of the user's ledger expires `at`; None: none is open."""
    version = 1 if before is None else int(before.after[:8], 16) + 1
    stored = None if before is None else before.after
    return ledger_change(user_id, stored, b'{"at":%d}' % (at or 0), version=version, next_expiry=at)


def neighbours(store, shard, count):
    """Users of one shard."""
    found = (f"user-{number}" for number in range(10_000))
    return [user for user in found if store.keys.shard_of_user(user) == shard][:count]


def test_ledgers_are_due_from_their_first_expiry_on_the_oldest_first(store, shard):
    users = neighbours(store, shard, 3)
    store.commit(shard, [opened(user, at) for user, at in zip(users, (30, 10, 20), strict=True)])
    of = [f"{user}\x1fdefault" for user in users]
    assert store.due_ledgers(shard, 9, 10) == []
    assert store.due_ledgers(shard, 10, 10) == [of[1]]
    assert store.due_ledgers(shard, 29, 10) == [of[1], of[2]]
    assert store.due_ledgers(shard, 30, 2) == [of[1], of[2]]
    assert store.due_ledgers((shard + 1) % store.keys.shard_count, 30, 10) == []


def test_a_ledger_moves_and_leaves_with_its_reservations(store, shard, redis_client):
    first = opened("ann", 10)
    store.commit(shard, [first])
    later = opened("ann", 50, first)
    store.commit(shard, [later])
    assert store.due_ledgers(shard, 49, 10) == []
    assert store.due_ledgers(shard, 50, 10) == ["ann\x1fdefault"]
    store.commit(shard, [opened("ann", None, later)])
    assert redis_client.exists(store.keys.expiries(shard)) == 0


def test_what_is_reserved_and_resolved_in_one_commit_never_expires(store, shard, redis_client):
    first = opened("ann", 10)
    store.commit(shard, [first, opened("ann", None, first)])
    assert redis_client.exists(store.keys.expiries(shard)) == 0


def test_an_expiry_beyond_what_a_score_can_hold_is_due_when_its_time_has_come(store, shard):
    store.commit(shard, [opened("ann", FAR_US)])
    assert store.due_ledgers(shard, FAR_US, 1) == ["ann\x1fdefault"]
    assert store.due_ledgers(shard, FAR_US - 10, 1) == []


def test_restoring_enters_ledgers_too(store, shard):
    first = opened("ann", 10)
    store.restore(shard, [first])
    assert store.due_ledgers(shard, 10, 1) == ["ann\x1fdefault"]
    store.restore(shard, [opened("ann", None, first)])
    assert store.due_ledgers(shard, 10, 1) == []
