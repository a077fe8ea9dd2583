"""The client's two threads: one sends what waits, one learns what the pool has done with it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from tradepool import wire
from tradepool.broker import ChangeSender
from tradepool.client.confirmation import Confirmation, Finished, Rejection
from tradepool.client.lag import Fullness, Lag
from tradepool.client.schedule import Schedule
from tradepool.client.spool import NewEntry, Spool, SpoolEntry
from tradepool.client.spool_folder import LOOK_EVERY_S, Siblings
from tradepool.errors import InvalidTokens, Misconfigured, StoreUnavailable
from tradepool.logger import CauseLog, Logger
from tradepool.model.token_commands import ReserveTokens
from tradepool.settings import Settings
from tradepool.store.connection import connect
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

__all__ = ["Delivery", "Pace"]

log = Logger(__name__)

REJECTIONS_KEPT_MAX = 10_000
CHECKED_MAX = 1000
"""Commands looked up in one round of confirmation."""
CHECK_PAUSE_MIN_S = 0.02
CHECK_PAUSE_MAX_S = 1.0
IDLE_PAUSE_S = 1.0
RETRY_PAUSE_MIN_S = 0.1
RETRY_PAUSE_MAX_S = 10.0
BACKLOG_MESSAGES_MAX = 100
"""A longer queue explains why commands are unconfirmed; sending them again would only lengthen it."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a client sends, in seconds and commands."""

    linger_s: float
    batch_max: int
    resend_s: float


class Delivery:
    """Takes commands from `spool` to the fleet until the pool has them.

    Owns the spool from here on, and takes over what `siblings` that have died left in theirs, at first
    and now and then. Threads may call everything; `changed` is notified of what was sent or has finished.
    """

    def __init__(
        self, settings: Settings, spool: Spool, pace: Pace, siblings: Siblings | None = None
    ) -> None:
        self.changed = threading.Condition()
        self.rejections: deque[Rejection] = deque(maxlen=REJECTIONS_KEPT_MAX)
        self._spool = spool
        self._pace = pace
        self._schedule = Schedule(resend_s=pace.resend_s)
        self._unfinished: dict[str, int] = {}
        self._unsent: set[int] = set()
        self._given_at_s: dict[int, float] = {}
        self._siblings = siblings
        self._sending = CauseLog(log, "cannot send", is_warning=True)
        self._confirming = CauseLog(log, "cannot confirm", is_warning=True)
        self._fullness = Fullness()
        self._sender = ChangeSender(settings)
        self._client = connect(settings)
        self._store = RedisStore(self._client, Keys(settings.shard_count), settings)
        self._stopping = threading.Event()
        self._pid = os.getpid()
        self._idle_s = min(IDLE_PAUSE_S, pace.resend_s)
        with self.changed:
            self._take(spool.entries())
        self._take_over(patience_s=0.0)
        self._threads = [
            threading.Thread(target=self._send_until_stopped, name="tradepool-send", daemon=True),
            threading.Thread(target=self._confirm_until_stopped, name="tradepool-confirm", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def give(self, entries: Sequence[NewEntry]) -> None:
        """Keep commands and send them soon.

        Raises: StoreUnavailable when the spool is full, Misconfigured in a forked child; none is kept then.
        """
        if os.getpid() != self._pid:
            raise Misconfigured("this client is a parent process's; connect another one after the fork")
        with self.changed:
            if self._stopping.is_set():
                raise StoreUnavailable("the client is closed")
            try:
                kept = self._spool.append(entries)
            except StoreUnavailable as refusal:
                if problem := self._problem():
                    raise StoreUnavailable(f"{refusal} (now: {problem})") from refusal
                raise
            self._take(kept)
            self._fullness.tell(self._spool, self._problem())

    def lag(self) -> Lag:
        """How far the pool is behind."""
        with self.changed:
            oldest_at_s = next(iter(self._given_at_s.values()), None)
            return Lag(
                commands=len(self._spool),
                unsent=len(self._unsent),
                room=self._spool.room,
                oldest_s=0.0 if oldest_at_s is None else time.monotonic() - oldest_at_s,
                problem=self._problem(),
            )

    def unfinished(self, record_id: str | None = None) -> int:
        """Commands, of one record or of all, that the pool has neither journaled nor refused."""
        return len(self._spool) if record_id is None else self._unfinished.get(record_id, 0)

    def unsent(self) -> int:
        """Commands that the broker has never been given."""
        return len(self._unsent)

    def confirmation(self) -> Confirmation:
        """A reader of the store for the calling thread."""
        return Confirmation(self._client, self._store)

    def stop(self) -> None:
        """End the threads and close everything; what is unfinished stays in the spool's file.

        Waits for a call to the broker or the store that is under way: its socket timeout at most.
        """
        self._stopping.set()
        with self.changed:
            self.changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._client.close()
        self._spool.close()

    def _take(self, entries: Iterable[SpoolEntry]) -> None:
        now_s = time.monotonic()
        for entry in entries:
            self._schedule.add(entry)
            self._given_at_s[entry.seq] = now_s
            self._unsent.add(entry.seq)
            self._unfinished[entry.record_id] = self._unfinished.get(entry.record_id, 0) + 1
        self.changed.notify_all()

    def _take_over(self, **options: float) -> None:
        """Take over, page by page, what siblings have left; threads that give commands come in between."""
        while self._siblings is not None and not self._stopping.is_set():
            with self.changed:
                taken = self._siblings.take_over(self._spool, **options)
                self._take(taken)
            if not taken:
                return

    def _problem(self) -> str:
        return self._sending.cause or self._confirming.cause

    def _send_until_stopped(self) -> None:
        look_again_at = 0.0
        take_over_at = time.monotonic() + LOOK_EVERY_S
        while not self._stopping.is_set():
            self._send_persistently(self._wait_for_batch())
            if time.monotonic() >= look_again_at:
                self._send_persistently(self._overdue())
                look_again_at = time.monotonic() + self._idle_s
            if time.monotonic() >= take_over_at:
                self._take_over()
                take_over_at = time.monotonic() + LOOK_EVERY_S

    def _wait_for_batch(self) -> list[SpoolEntry]:
        with self.changed:
            self.changed.wait_for(lambda: self._schedule.ready or self._stopping.is_set(), self._idle_s)
            if not self._schedule.ready:
                return []
            full = self._pace.batch_max
            self.changed.wait_for(
                lambda: self._schedule.is_worth_sending(full) or self._stopping.is_set(), self._pace.linger_s
            )
            return self._schedule.next_batch(full, time.monotonic())

    def _overdue(self) -> list[SpoolEntry]:
        """Commands to send again, unless the fleet's queue is so long that they may still be in it."""
        now_s = time.monotonic()
        with self.changed:
            again = self._schedule.overdue(self._pace.batch_max, now_s)
        if not again:
            return []
        try:
            backlog = self._sender.backlog(again[0].queue)
        except (StoreUnavailable, Misconfigured):
            return []
        if backlog > BACKLOG_MESSAGES_MAX:
            with self.changed:
                again = self._schedule.postpone(again, now_s)
            if not again:
                return []
        log.info("sending again", commands=len(again))
        return again

    def _send_persistently(self, batch: Sequence[SpoolEntry]) -> None:
        """Send one message, again with growing pauses until the broker has it or the client stops."""
        pause_s = RETRY_PAUSE_MIN_S
        while batch:
            try:
                self._send(batch)
                self._sending.worked()
                return
            except Exception as problem:  # noqa: BLE001 - the thread's boundary: a client must not fall silent
                self._sending.failed(problem)
            if self._stopping.wait(pause_s):
                return
            pause_s = min(2 * pause_s, RETRY_PAUSE_MAX_S)

    def _send(self, batch: Sequence[SpoolEntry]) -> None:
        bodies = self._spool.bodies([entry.seq for entry in batch])
        if bodies:
            self._sender.send(batch[0].queue, [orjson.Fragment(body) for body in bodies])
        with self.changed:
            self._unsent -= {entry.seq for entry in batch}
            self.changed.notify_all()

    def _confirm_until_stopped(self) -> None:
        confirmation = self.confirmation()
        pause_s = CHECK_PAUSE_MIN_S
        while not self._stopping.wait(pause_s):
            finished = self._check(confirmation)
            pause_s = CHECK_PAUSE_MIN_S if finished else min(1.5 * pause_s, CHECK_PAUSE_MAX_S)

    def _check(self, confirmation: Confirmation) -> int:
        """One round; how many commands have finished."""
        with self.changed:
            self.changed.wait_for(
                lambda: self._schedule.any_under_way or self._stopping.is_set(), IDLE_PAUSE_S
            )
            entries = self._schedule.under_way(CHECKED_MAX)
        if not entries:
            return 0
        try:
            finished = confirmation.check(entries)
            if finished:
                self._finish(finished)
        except Exception as problem:  # noqa: BLE001 - the thread's boundary: a client must not fall silent
            self._confirming.failed(problem)
            return 0
        self._confirming.worked()
        return len(finished)

    def _finish(self, finished: Sequence[Finished]) -> None:
        with self.changed:
            rejections = [one.rejection or self._not_reserved(one) for one in finished]
            self._spool.remove([one.entry.seq for one in finished])
            for one, rejection in zip(finished, rejections, strict=True):
                self._schedule.finish(one.entry)
                self._forget(one.entry)
                if rejection is not None:
                    self.rejections.append(rejection)
            self._fullness.tell(self._spool, self._problem())
            self.changed.notify_all()

    def _not_reserved(self, finished: Finished) -> Rejection | None:
        """What a bot must hear of a reserve that came too late, or under a key that is used up.

        To the pool it is no error, but nothing is held.
        """
        entry = finished.entry
        if not finished.is_stale or entry.queue != wire.QUEUE_TOKENS:
            return None
        commands = [wire.command_from_wire(wire.decode(body)) for body in self._spool.bodies([entry.seq])]
        if not any(isinstance(command, ReserveTokens) for command in commands):
            return None
        return Rejection(
            command_id=entry.command_id,
            record_id=entry.record_id,
            error=InvalidTokens.__name__,
            problem="came too late, or its key is used up: nothing is reserved",
            field="ttl_s",
            cure="reserve again under another key",
        )

    def _forget(self, entry: SpoolEntry) -> None:
        del self._given_at_s[entry.seq]
        left = self._unfinished[entry.record_id] - 1
        if left:
            self._unfinished[entry.record_id] = left
        else:
            del self._unfinished[entry.record_id]
