"""Messages of the clock: each tick takes effect once, also when two beats have sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tradepool.errors import Corrupt, Misconfigured, Unavailable
from tradepool.logger import Logger
from tradepool.store import tick_guard
from tradepool.store.tick_guard import Tick

if TYPE_CHECKING:
    from tasks.app import PoolApp

__all__ = ["TICK_HEADER", "is_doubled", "tick_header"]

log = Logger(__name__)

TICK_HEADER = "tick"
"""The header of a message that beat has sent; without it a call is nobody's tick, and is run."""


def tick_header(tick: Tick) -> dict[str, Any]:
    """The headers of a message of `tick`."""
    return {TICK_HEADER: msgspec.to_builtins(tick)}


def is_doubled(app: PoolApp, task_id: str, header: object) -> bool:
    """Whether the message with this `TICK_HEADER` is one too many: its tick, or a later one, is another's.

    While the store does not answer none is: it is better to do the same twice than not at all.
    """
    if header is None:
        return False
    try:
        is_taken = tick_guard.take(app.services.client, msgspec.convert(header, Tick))
    except (Unavailable, Misconfigured, Corrupt, msgspec.ValidationError) as problem:
        log.warning("cannot tell whether a tick is doubled", task_id=task_id, problem=str(problem))
        return False
    if not is_taken:
        log.info("doubled tick dropped", task_id=task_id)
    return not is_taken
