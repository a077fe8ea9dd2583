"""Tasks that change token balances and reservations.

`command_id` and `as_of` may be added to any of those that a bot calls, as in `tasks.trades`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.app import app
from tasks.pool_task import PoolTask, WriteTask

__all__ = [
    "expire_reservations",
    "release_tokens",
    "reserve_tokens",
    "settle_tokens",
    "update_available_tokens",
]

Answer = dict[str, Any]


@app.task(base=WriteTask, bind=True, name="tasks.tokens.update_available_tokens")
def update_available_tokens(
    self: WriteTask,
    user_id: str,
    tokens: Mapping[str, Any] | Sequence[str],
    account_id: str = "default",
    complete: bool = False,  # noqa: FBT001, FBT002 - a message's arguments have names only by convention
    **about: Any,
) -> Answer:
    """Take a venue's snapshot of free balances `{asset: amount}`, or a list of tradable assets."""
    given = {"user_id": user_id, "tokens": tokens, "account_id": account_id, "complete": complete}
    return self.apply_one(about, op="update_tokens", **given)


@app.task(base=WriteTask, bind=True, name="tasks.tokens.reserve_tokens")
def reserve_tokens(
    self: WriteTask,
    user_id: str,
    asset: str,
    amount: Any,
    key: str,
    ttl_s: Any,
    account_id: str = "default",
    **about: Any,
) -> Answer:
    """Set `amount` of `asset` aside under `key`, for `ttl_s` seconds after it was sent."""
    wanted = {"asset": asset, "amount": amount, "key": key, "ttl_s": ttl_s}
    return self.apply_one(about, op="reserve_tokens", user_id=user_id, account_id=account_id, **wanted)


@app.task(base=WriteTask, bind=True, name="tasks.tokens.settle_tokens")
def settle_tokens(
    self: WriteTask,
    reservation_id: str,
    spent: Any,
    received: Mapping[str, Any] | None = None,
    **about: Any,
) -> Answer:
    """Spend `spent` of a reservation, give its rest back, book what was `received` by asset."""
    result = {"spent": spent, "received": received}
    return self.apply_one(about, op="settle_tokens", reservation_id=reservation_id, **result)


@app.task(base=WriteTask, bind=True, name="tasks.tokens.release_tokens")
def release_tokens(self: WriteTask, reservation_id: str, **about: Any) -> Answer:
    """Give a reservation back unspent."""
    return self.apply_one(about, op="release_tokens", reservation_id=reservation_id)


@app.task(base=PoolTask, name="tasks.tokens.expire_reservations")
def expire_reservations() -> int:
    """Give back every reservation whose time is over; how many. Beat's; no bot needs it."""
    return int(app.trade_pool.expire_reservations())
