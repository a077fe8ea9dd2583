"""What keeps a tick of the clock from taking effect twice, should two beats ever send it."""

from __future__ import annotations

from importlib import resources
from typing import Any

import msgspec

from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["Tick", "take"]

_TAKE = (resources.files("tradepool.store") / "lua" / "take_tick.lua").read_text(encoding="utf-8")


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Which tick a message of beat carries."""

    entry: str
    """The name of the schedule's entry."""
    due_ms: int
    """When it was due, by the schedule and the entry's last run; ms since 1970."""
    token: str
    """The message's own: it stays when that is delivered again; another message of the tick has another."""
    kept_ms: int
    """How long the tick is remembered: longer than a message of it can lie on a queue."""


def take(client: Client, tick: Tick) -> bool:
    """Whether the message of `tick` may be run: no other message of the tick was, and no later tick.

    A message that has taken its tick may be run again, for its worker may have died.

    Raises: StoreUnavailable, Misconfigured, Corrupt.
    """
    arguments = (tick.due_ms, tick.token, max(1, tick.kept_ms))
    with translated():
        taken: Any = client.eval(_TAKE, 1, Keys.tick(tick.entry), *arguments)
    return bool(taken)
