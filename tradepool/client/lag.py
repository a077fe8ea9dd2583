"""How far the pool is behind a client: what a bot looks at, and its log says, before the spool is full."""

from __future__ import annotations

import msgspec

from tradepool.client.spool import Spool
from tradepool.logger import Logger

__all__ = ["BEHIND_SHARE", "Fullness", "Lag"]

log = Logger(__name__)

BEHIND_SHARE = 0.5
"""The share of the spool that is full when the log says so; at half of that it says that all is well."""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """What of a client's commands the pool has not confirmed yet."""

    commands: int
    """Neither journaled nor refused."""
    unsent: int
    """Of these, those that the broker was never given."""
    room: int
    """How many more the spool takes before calls raise StoreUnavailable."""
    oldest_s: float
    """How long the first of them has been waiting, in seconds; 0 when there is none. For what an earlier
    process has left, since this one has it."""
    problem: str = ""
    """Why nothing can be sent or confirmed at present, or which trade the first command waits for, because
    the pool does not have it; empty when all is well."""


class Fullness:
    """Says once that the pool falls behind, and once that it has caught up. For one thread at a time."""

    def __init__(self) -> None:
        self._is_behind = False

    def tell(self, spool: Spool, problem: str) -> None:
        """Look at `spool`; `problem` is why nothing leaves it, if that is known."""
        held, room = len(spool), spool.room
        share = held / max(1, held + room)
        if not self._is_behind and share >= BEHIND_SHARE:
            self._is_behind = True
            log.warning("the pool is behind", commands=held, room=room, problem=problem)
        elif self._is_behind and share <= BEHIND_SHARE / 2:
            self._is_behind = False
            log.info("the pool has caught up", commands=held, room=room)
