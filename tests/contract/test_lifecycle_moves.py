"""Every move of a trade's status through a real pool: the legal ones by public calls, the others refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from tests.loose_trades import buy, entry
from tradepool import TradePool, errors
from tradepool.model.lifecycle import TRANSITIONS
from tradepool.model.trade import Status
from tradepool.store.keys import BUCKETS, Keys

PENDING, SUBMITTED, REJECTED = Status.PENDING, Status.SUBMITTED, Status.REJECTED
PARTIALLY_FILLED, FILLED = Status.PARTIALLY_FILLED, Status.FILLED
PARTIALLY_CLOSED, COMPLETED = Status.PARTIALLY_CLOSED, Status.COMPLETED
CANCELLED, EXPIRED = Status.CANCELLED, Status.EXPIRED

Call = Callable[[TradePool, str], object]


def told(status: Status) -> Call:
    """A bot says the status."""
    return lambda pool, trade_id: pool.update_trade(trade_id, status=status)


def filled_by(amount: str) -> Call:
    """An entry fill."""
    return lambda pool, trade_id: pool.add_fill(trade_id, entry(f"{trade_id}-in-{amount}", amount=amount))


def closed_by(amount: str | None) -> Call:
    """An exit, of the rest for None."""
    return lambda pool, trade_id: pool.close_trade(trade_id, "110", amount=amount)


# The orders are of 4; a fill of 3 is a part, and so is what an exit of 1 leaves.
TO_GET_THERE: dict[Status, list[Call]] = {
    PENDING: [],
    SUBMITTED: [told(SUBMITTED)],
    PARTIALLY_FILLED: [filled_by("3")],
    FILLED: [filled_by("4")],
    PARTIALLY_CLOSED: [filled_by("4"), closed_by("1")],
    COMPLETED: [filled_by("4"), closed_by(None)],
    CANCELLED: [told(CANCELLED)],
    EXPIRED: [told(EXPIRED)],
    REJECTED: [told(REJECTED)],
}
MOVES: dict[Status, list[Call]] = {
    PENDING: [told(PENDING)],
    SUBMITTED: [told(SUBMITTED)],
    PARTIALLY_FILLED: [filled_by("2"), told(PARTIALLY_FILLED)],
    FILLED: [told(FILLED), filled_by("1"), filled_by("4")],
    PARTIALLY_CLOSED: [closed_by("1"), told(PARTIALLY_CLOSED)],
    COMPLETED: [closed_by(None), told(COMPLETED)],
    CANCELLED: [told(CANCELLED)],
    EXPIRED: [told(EXPIRED)],
    REJECTED: [told(REJECTED)],
}
"""Every call that could make the move, the one that should first."""

PAIRS = [(old, new) for old, new in product(Status, Status) if old is not new]
LEGAL = [(old, new) for old, new in PAIRS if new in TRANSITIONS[old]]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]


@pytest.fixture(scope="module")
def pool(server_binary, tmp_path_factory) -> Iterator[TradePool]:
    with TradePool.embedded(tmp_path_factory.mktemp("moves"), shard_count=1) as opened:
        yield opened


def trade_in(pool: TradePool, status: Status) -> str:
    trade_id = pool.add_trade(buy(amount="4")).trade_id
    for call in TO_GET_THERE[status]:
        call(pool, trade_id)
    assert pool.get_trade(trade_id).status is status
    return trade_id


def written(pool: TradePool) -> tuple[Any, ...]:
    """What every commit changes, and every record."""
    keys = Keys(1)
    last_commit = pool.redis.xinfo_stream(keys.outbox(0))["last-generated-id"]
    return last_commit, [pool.redis.hgetall(keys.records(0, bucket)) for bucket in range(BUCKETS)]


def outcome_of(call: Call, pool: TradePool, trade_id: str) -> object:
    try:
        call(pool, trade_id)
    except errors.IllegalTransition as refusal:
        return refusal
    return pool.get_trade(trade_id).status


@pytest.mark.parametrize("old", Status)
def test_every_legal_move_is_reached_by_a_public_call(pool, old):
    for new in [new for start, new in LEGAL if start is old]:
        # What cancels the rest of an order that is partly filled leaves a filled one of the smaller amount.
        ends = FILLED if (old, new) == (PARTIALLY_FILLED, CANCELLED) else new
        reached = [outcome_of(call, pool, trade_in(pool, old)) for call in MOVES[new]]
        assert ends in reached, f"{old} to {new}: {reached}"


@pytest.mark.parametrize("old", Status)
def test_every_other_move_is_refused_and_writes_nothing(pool, old):
    trade_id = trade_in(pool, old)
    before = written(pool)
    for new in [new for start, new in ILLEGAL if start is old]:
        refusal = outcome_of(told(new), pool, trade_id)
        assert isinstance(refusal, errors.IllegalTransition)
        assert (refusal.field, written(pool)) == ("status", before)


@pytest.mark.parametrize("old", Status)
def test_no_fill_or_close_makes_a_move_that_the_table_lacks(pool, old):
    trade_id = trade_in(pool, old)
    before = written(pool)
    for call in (filled_by("2"), filled_by("4"), closed_by("1"), closed_by(None)):
        reached = outcome_of(call, pool, trade_id)
        if isinstance(reached, errors.IllegalTransition):
            assert written(pool) == before
            continue
        assert reached in {old, *TRANSITIONS[old]}
        trade_id = trade_in(pool, old)
        before = written(pool)
