"""What archived trades counted for is recovered exactly, also from a snapshot without them."""

from __future__ import annotations

import pytest

from tests.pool_at_work import USERS, PoolAtWork, contents, digests, image_of, snapshot
from tests.store_changes import archiving, change, filled, new_trade
from tradepool.model.kinds import Role
from tradepool.store.plan import RecordChange


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_what_archived_trades_counted_for_survives_the_server(pool, from_snapshot):
    for _ in range(2):
        pool.trade_a_while()
        for user_id in USERS:
            pool.archive_closed(user_id)
    if from_snapshot:
        snapshot(pool)
    pool.drain()
    before, positions = contents(pool), digests(pool)
    counted = {user: (pool.store.counters(user), pool.store.archived_counters(user)) for user in USERS}
    assert all(archived["real|USDT|pnl"] == 2 * 10**9 for _, archived in counted.values())
    pool.lose_everything()
    report = pool.begin()
    assert (report.from_snapshot > 0) == from_snapshot
    assert contents(pool) == before
    assert digests(pool) == positions
    assert {
        user: (pool.store.counters(user), pool.store.archived_counters(user)) for user in USERS
    } == counted


@pytest.mark.parametrize("archived_before_the_snapshot", [False, True])
def test_trades_archived_around_a_snapshot_count_once(pool, archived_before_the_snapshot):
    pool.add_closed("ann")
    if archived_before_the_snapshot:
        pool.archive_closed("ann")
    pool.add_closed("ann")
    snapshot(pool)
    pool.archive_closed("ann")
    pool.drain()
    before = contents(pool)
    pool.lose_everything()
    assert pool.begin().from_snapshot == 2
    assert contents(pool) == before
    assert pool.store.archived_counters("ann") == pool.store.counters("ann")


def test_an_older_server_is_told_what_was_archived_since(pool):
    pool.trade_a_while()
    pool.drain()
    image = image_of(pool.client)
    pool.add_closed("ann")
    pool.archive_closed("ann")
    pool.drain()
    before, positions = contents(pool), digests(pool)
    pool.come_back_as(image)
    pool.begin()
    assert contents(pool) == before
    assert digests(pool) == positions


@pytest.mark.parametrize("is_older", [False, True])
def test_what_an_archived_trade_gave_free_belongs_to_whoever_claimed_it_then(pool, is_older):
    """In the very batch in which it is given free, and by a trade that comes before it in there."""
    first, later = new_trade("ann", idempotency_key="k"), new_trade("ann")
    entered = filled(first, fill_id="e")
    left = filled(entered, Role.EXIT, fill_id="x")
    second = new_trade("ann", idempotency_key="k")
    commit_each(pool, change(None, first), change(first, entered), change(entered, left))
    image = image_of(pool.client) if is_older else {}
    commit_each(
        pool,
        change(None, later),
        archiving(left),
        change(None, second),
        change(second, filled(second, fill_id="e")),
        change(later, filled(later, fill_id="x")),
    )
    before = contents(pool)
    pool.come_back_as(image)
    pool.begin()
    assert contents(pool) == before
    assert pool.store.idempotency_owner("ann", "k") == second.trade_id


def commit_each(pool: PoolAtWork, *changes: RecordChange) -> None:
    for made in changes:
        pool.store.commit(pool.keys.shard_of_user("ann"), [made])
    pool.drain()
