"""Giving back every reservation whose time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tradepool.commanding import new_command_id
from tradepool.deciding import Result
from tradepool.model.commands import PoolCommand
from tradepool.model.ledger import owner_of_ledger
from tradepool.model.receipt import Receipt
from tradepool.model.token_commands import ExpireTokens
from tradepool.store.redis_store import RedisStore

__all__ = ["expire_reservations"]

BATCH = 200
"""Ledgers of one shard whose reservations are given back in one step."""
ROUNDS_MAX = 1000
"""Such steps of one shard and call; what is over after that waits for the next call."""


def expire_reservations(
    store: RedisStore, apply: Callable[[Sequence[PoolCommand]], Sequence[Result]], now_us: Callable[[], int]
) -> int:
    """Give back by `apply` what is over by the clock `now_us`; how many reservations this call gave back.

    Several may run at once: each reservation is given back by one of them. Raises: as `TradeCore.apply`.
    """
    return sum(_expire_shard(store, apply, now_us, shard) for shard in store.keys.shards)


def _expire_shard(
    store: RedisStore,
    apply: Callable[[Sequence[PoolCommand]], Sequence[Result]],
    now_us: Callable[[], int],
    shard: int,
) -> int:
    expired = 0
    for _ in range(ROUNDS_MAX):
        due = store.due_ledgers(shard, now_us(), BATCH)
        now = now_us()
        results = apply([_expire(record_id, now) for record_id in due])
        given_back = sum(result.expired for result in results if isinstance(result, Receipt))
        expired += given_back
        if len(due) < BATCH or not given_back:
            break
    return expired


def _expire(record_id: str, now: int) -> ExpireTokens:
    user_id, account_id = owner_of_ledger(record_id)
    return ExpireTokens(command_id=new_command_id(), as_of=now, user_id=user_id, account_id=account_id)
