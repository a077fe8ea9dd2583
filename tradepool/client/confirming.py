"""The client's thread that learns what the pool has done with the commands under way."""

from __future__ import annotations

import time
from collections.abc import Callable

from tradepool import wire
from tradepool.client.confirmation import Confirmation, Finished, Rejection
from tradepool.client.pending import Pending
from tradepool.errors import InvalidTokens
from tradepool.model.token_commands import ReserveTokens

__all__ = ["Confirming", "next_pause_s"]

IDLE_PAUSE_S = 1.0
FEW = 20
"""So many commands are waited for with short pauses, for somebody may be waiting for them."""
PAUSE_FEW_S = 0.002
PAUSE_MANY_S = 0.02
PAUSE_BACKLOG_S = 0.1
"""While many commands are under way and a look finds fewer than `FEW` that have ended, whatever it costs."""
PAUSE_MAX_S = 1.0
"""While nothing ends."""
PAUSE_GROWTH = 1.5
EXPLAIN_EVERY_S = 5.0
"""How often the first command is looked at that has waited for so long, for what it waits for."""


class Confirming:
    """Asks the store through what `connect` gives, and tells `pending` what has finished."""

    def __init__(self, pending: Pending, connect: Callable[[], Confirmation]) -> None:
        self._pending = pending
        self._connect = connect
        self._confirmation: Confirmation | None = None
        self._explain_at_s = time.monotonic() + EXPLAIN_EVERY_S

    def run(self) -> None:
        """Confirm until the client stops."""
        pending = self._pending
        pause_s = PAUSE_FEW_S
        while not pending.stopping.is_set():
            if not self._wait_for_any():
                continue
            pending.sent.clear()
            pause_s = next_pause_s(pause_s, finished=self._check(), left=pending.unfinished())
            if pending.stopping.wait(min(pause_s, PAUSE_BACKLOG_S)):
                return
            # What is sent now is not to wait for as long as what waits already.
            if pause_s > PAUSE_BACKLOG_S and pending.sent.wait(pause_s - PAUSE_BACKLOG_S):
                pause_s = PAUSE_FEW_S

    def _wait_for_any(self) -> bool:
        pending = self._pending
        with pending.changed:
            pending.changed.wait_for(
                lambda: pending.schedule.any_under_way or pending.stopping.is_set(), IDLE_PAUSE_S
            )
            return pending.schedule.any_under_way

    def _check(self) -> int:
        """One round; how many commands have finished."""
        try:
            confirmation = self._confirmation = self._confirmation or self._connect()
            with self._pending.changed:
                under_way = self._pending.schedule.under_way(confirmation.window)
            finished = confirmation.check(under_way)
            if finished:
                self._pending.finish(finished, [one.rejection or self._not_reserved(one) for one in finished])
            if time.monotonic() >= self._explain_at_s:
                self._explain(confirmation)
                self._explain_at_s = time.monotonic() + EXPLAIN_EVERY_S
        except Exception as problem:  # noqa: BLE001 - the thread's boundary: a client must not fall silent
            self._pending.confirming.failed(problem)
            return 0
        self._pending.confirming.worked()
        return len(finished)

    def _explain(self, confirmation: Confirmation) -> None:
        """Have the bot learn what its first command waits for: workers leave its trade time to be added."""
        first = self._pending.oldest_sent(wire.QUEUE_TRADES, waiting_s=EXPLAIN_EVERY_S)
        if first is None or confirmation.has(first.record_id):
            self._pending.explain(None)
        else:
            self._pending.explain(
                first,
                f"the pool has no trade {first.record_id!r}; changes of it wait for its add, for two "
                "TRADEPOOL_VISIBILITY_TIMEOUT_S of the workers, then they are refused",
            )

    def _not_reserved(self, finished: Finished) -> Rejection | None:
        """What a bot must hear of a reserve that came too late, or under a key that is used up.

        To the pool it is no error, but nothing is held.
        """
        entry = finished.entry
        if not finished.is_stale or entry.queue != wire.QUEUE_TOKENS:
            return None
        bodies = self._pending.spool.bodies([entry.seq]).values()
        if not any(isinstance(wire.command_from_wire(wire.decode(body)), ReserveTokens) for body in bodies):
            return None
        return Rejection(
            command_id=entry.command_id,
            record_id=entry.record_id,
            error=InvalidTokens.__name__,
            problem="came too late, or its key is used up: nothing is reserved",
            field="ttl_s",
            cure="reserve again under another key",
        )


def next_pause_s(pause_s: float, *, finished: int, left: int) -> float:
    """How long to wait after a look behind `pause_s` which found `finished` commands and left `left`."""
    if left <= FEW:
        return PAUSE_FEW_S if finished else min(PAUSE_GROWTH * pause_s, PAUSE_MAX_S)
    if finished >= FEW:
        return max(pause_s / PAUSE_GROWTH, PAUSE_MANY_S)
    longest_s = PAUSE_BACKLOG_S if finished else PAUSE_MAX_S
    return min(PAUSE_GROWTH * max(pause_s, PAUSE_MANY_S), longest_s)
