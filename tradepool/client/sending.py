"""The client's thread that sends what waits, and again what stays unconfirmed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tradepool.broker import ChangeSender
from tradepool.client.pending import Pending
from tradepool.client.spool import BODIES_MAX, SpoolEntry
from tradepool.client.spool_folder import LOOK_EVERY_S, Siblings
from tradepool.errors import Misconfigured, StoreUnavailable
from tradepool.logger import Logger

__all__ = ["Pace", "Sending"]

log = Logger(__name__)

MESSAGES_MAX = 50
"""Messages sent in one exchange."""
IDLE_PAUSE_S = 1.0
RETRY_PAUSE_MIN_S = 0.1
RETRY_PAUSE_MAX_S = 10.0
BACKLOG_MESSAGES_MAX = 100
"""A longer queue explains why commands are unconfirmed; sending them again would only lengthen it."""

Messages = Sequence[Sequence[SpoolEntry]]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a client sends, in seconds and commands."""

    linger_s: float
    batch_max: int
    resend_s: float


class Sending:
    """Takes commands to the fleet; `siblings` have what it takes over when their processes have died."""

    def __init__(self, pending: Pending, sender: ChangeSender, pace: Pace, siblings: Siblings | None) -> None:
        self._pending = pending
        self._sender = sender
        self._pace = pace
        self._siblings = siblings
        self._idle_s = min(IDLE_PAUSE_S, pace.resend_s)

    def run(self) -> None:
        """Send until the client stops."""
        look_again_at = 0.0
        take_over_at = time.monotonic() + LOOK_EVERY_S
        while not self._pending.stopping.is_set():
            self._send_persistently(self._wait_for_messages())
            if time.monotonic() >= look_again_at:
                self._send_persistently(self._overdue())
                look_again_at = time.monotonic() + self._idle_s
            if time.monotonic() >= take_over_at:
                self.take_over()
                take_over_at = time.monotonic() + LOOK_EVERY_S

    def take_over(self, **options: float) -> None:
        """Take over, page by page, what siblings have left; threads that give commands come in between."""
        pending = self._pending
        while self._siblings is not None and not pending.stopping.is_set():
            with pending.changed:
                taken = self._siblings.take_over(pending.spool, **options)
                pending.take(taken)
            if not taken:
                return

    def _wait_for_messages(self) -> Messages:
        """What may be sent now, once some of it is worth sending; full messages only behind the first one."""
        schedule, changed, stopping = self._pending.schedule, self._pending.changed, self._pending.stopping
        full = self._pace.batch_max
        with changed:
            changed.wait_for(lambda: schedule.ready or stopping.is_set(), self._idle_s)
            if not schedule.ready:
                return []
            changed.wait_for(
                lambda: schedule.is_worth_sending(full) or stopping.is_set(), self._pace.linger_s
            )
            messages = [schedule.next_batch(full, time.monotonic())]
            most = min(MESSAGES_MAX, BODIES_MAX // full)
            while schedule.ready >= full and len(messages) < most:
                messages.append(schedule.next_batch(full, time.monotonic()))
        return [message for message in messages if message]

    def _overdue(self) -> Messages:
        """Commands to send again, unless the fleet's queue is so long that they may still be in it."""
        now_s = time.monotonic()
        with self._pending.changed:
            again = self._pending.schedule.overdue(self._pace.batch_max, now_s)
        if not again:
            return []
        try:
            backlog = self._sender.backlog(again[0].queue)
        except (StoreUnavailable, Misconfigured):
            return []
        if backlog > BACKLOG_MESSAGES_MAX:
            with self._pending.changed:
                again = self._pending.schedule.postpone(again, now_s)
            if not again:
                return []
        log.info("sending again", commands=len(again))
        return [again]

    def _send_persistently(self, messages: Messages) -> None:
        """Send messages, again with growing pauses until the broker has them or the client stops."""
        failures = self._pending.sending
        pause_s = RETRY_PAUSE_MIN_S
        while messages:
            try:
                self._send(messages)
                failures.worked()
                return
            except Exception as problem:  # noqa: BLE001 - the thread's boundary: a client must not fall silent
                failures.failed(problem)
            if self._pending.stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, RETRY_PAUSE_MAX_S)

    def _send(self, messages: Messages) -> None:
        bodies = self._pending.spool.bodies([entry.seq for message in messages for entry in message])
        for queue in dict.fromkeys(message[0].queue for message in messages):
            # What has finished while the broker was away is no longer in the spool.
            kept = [
                [bodies[entry.seq] for entry in message if entry.seq in bodies]
                for message in messages
                if message[0].queue == queue
            ]
            if full := [message for message in kept if message]:
                self._sender.send_each(queue, full)
        self._pending.note_sent(entry for message in messages for entry in message)
