"""From a message to its commands, with the names and times that they get at each delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tradepool import wire
from tradepool.clock import now_us
from tradepool.errors import Rejected
from tradepool.model import ids
from tradepool.model.commands import Command

__all__ = ["Envelope", "completed", "decode"]


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What is known of a message besides its commands."""

    task_id: str
    task_name: str
    sent_at: int | None = None
    """µs since 1970; None when the producer did not say."""
    overtaken_since: int | None = None
    """When a command of this message first missed what it changes, µs since 1970."""

    @property
    def is_in_order(self) -> bool:
        """Whether a `PoolClient` sent it, which sends nothing before what stands ahead of it is done."""
        return self.task_name == wire.APPLY_CHANGES and self.overtaken_since is None


def completed(envelope: Envelope, index: int, message: Any) -> dict[str, Any]:
    """The message with the ids and times that follow from where it stands: the same at each delivery.

    What is parked is this, so that sent again from there it is the same command.
    """
    if not isinstance(message, Mapping):
        message = {"op": message}
    # A message's commands were known one after the other: its repeat must not undo a later one of it.
    known_at = envelope.sent_at or now_us()
    defaults = {"command_id": f"{envelope.task_id}:{index}", "as_of": known_at + index}
    completed = defaults | {name: value for name, value in message.items() if value is not None}
    match completed:
        case {
            "op": "add_trade",
            "command_id": str(seed),
            "trade": {"user_id": str(user_id)} as trade,
        } if trade.get("trade_id") is None:
            trade_id = ids.derive_id(user_id, at_us=envelope.sent_at or 0, seed=seed)
            completed["trade"] = {**trade, "trade_id": trade_id}
    return completed


def decode(message: dict[str, Any]) -> Command | Rejected:
    """The command in a `completed` message, or why it is none."""
    try:
        return wire.command_from_wire(message)
    except Rejected as refusal:
        return refusal
