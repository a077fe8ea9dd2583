"""Tasks that change trades. Each decodes its message and makes one call; what may go wrong is delivery's.

A caller may add `command_id` (a name for the request: sent twice, it is applied once) and `as_of` (when
the caller knew it) to any of them; both follow from the message otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.app import app
from tasks.delivery import deliver
from tasks.pool_task import WriteTask

__all__ = [
    "add_fill",
    "add_trade",
    "add_trades",
    "apply_changes",
    "close_trade",
    "update_trade",
    "update_trade_pnl",
]

Answer = dict[str, Any]


@app.task(base=WriteTask, bind=True, name="tasks.trades.add_trade")
def add_trade(
    self: WriteTask, trade: Mapping[str, Any], reserve: Mapping[str, Any] | None = None, **about: Any
) -> Answer:
    """Add one trade (a dict); without a `trade_id` it gets one that follows from the message.

    With `reserve` (`asset`, `amount`, `ttl_s`, perhaps a `key`) tokens are set aside for it in one commit.
    """
    return self.apply_one(about, op="add_trade", trade=trade, reserve=reserve)


@app.task(base=WriteTask, bind=True, name="tasks.trades.add_trades")
def add_trades(self: WriteTask, trades: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Add trades in order; those that are refused are parked, all others are added."""
    return deliver(app, self.envelope(), [{"op": "add_trade", "trade": trade} for trade in trades])


@app.task(base=WriteTask, bind=True, name="tasks.trades.add_fill")
def add_fill(
    self: WriteTask, trade_id: str, fill: Mapping[str, Any], user_id: str | None = None, **about: Any
) -> Answer:
    """Book an entry or exit fill (a dict) of a trade."""
    return self.apply_one(about, op="add_fill", trade_id=trade_id, fill=fill, user_id=user_id)


@app.task(base=WriteTask, bind=True, name="tasks.trades.close_trade")
def close_trade(
    self: WriteTask,
    trade_id: str,
    price: Any,
    fee: Any = 0,
    fee_currency: str | None = None,
    amount: Any = None,
    at: Any = None,
    **about: Any,
) -> Answer:
    """Book an exit of the open rest, or of `amount`, at `price`."""
    exit_fields = {"price": price, "fee": fee, "fee_currency": fee_currency, "amount": amount, "at": at}
    return self.apply_one(about, op="close_trade", trade_id=trade_id, **exit_fields)


@app.task(base=WriteTask, bind=True, name="tasks.trades.update_trade")
def update_trade(
    self: WriteTask,
    trade_id: str,
    changes: Mapping[str, Any] | None = None,
    expected_version: int | None = None,
    **fields: Any,
) -> Answer:
    """Change mutable fields or the status, given as one dict or by name."""
    about = {name: fields.pop(name, None) for name in ("command_id", "as_of")}
    return self.apply_one(
        about,
        op="update_trade",
        trade_id=trade_id,
        changes={**(changes or {}), **fields},
        expected_version=expected_version,
    )


@app.task(base=WriteTask, bind=True, name="tasks.trades.update_trade_pnl")
def update_trade_pnl(
    self: WriteTask, trade_id: str, pnl: Any, status: str = "completed", **about: Any
) -> Answer:
    """Store the PnL that a bot or venue reports; an older `as_of` is `stale`."""
    return self.apply_one(about, op="update_trade_pnl", trade_id=trade_id, pnl=pnl, status=status)


@app.task(base=WriteTask, bind=True, name="tasks.trades.apply_changes")
def apply_changes(
    self: WriteTask, commands: Sequence[Mapping[str, Any]], overtaken_since: int | None = None
) -> list[Answer]:
    """Apply a chunk of commands of any kind in order: what `PoolClient` sends.

    `overtaken_since` (µs) tells when these commands first found no trade and were sent again.
    """
    return deliver(app, self.envelope(overtaken_since=overtaken_since), commands)
