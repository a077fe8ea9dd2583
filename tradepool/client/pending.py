"""The commands that a client still cares for: kept in the spool, in order, and how far each has come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

from tradepool.client.confirmation import Finished, Rejection
from tradepool.client.lag import Fullness, Lag
from tradepool.client.schedule import Schedule
from tradepool.client.spool import NewEntry, Spool, SpoolEntry
from tradepool.errors import StoreUnavailable
from tradepool.logger import CauseLog, Logger

__all__ = ["REJECTIONS_KEPT_MAX", "Pending"]

log = Logger(__name__)

REJECTIONS_KEPT_MAX = 10_000


class Pending:
    """What the pool has neither journaled nor refused.

    Threads share it; whoever uses `schedule` holds `changed`, which is notified of what was given, was sent
    or has finished, and of the end.
    """

    def __init__(self, spool: Spool, *, resend_s: float) -> None:
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self.sent = threading.Event()
        """Set when something was sent; whoever waits for that clears it."""
        self.spool = spool
        self.schedule = Schedule(resend_s=resend_s)
        self.rejections: deque[Rejection] = deque(maxlen=REJECTIONS_KEPT_MAX)
        self.sending = CauseLog(log, "cannot send", is_warning=True)
        self.confirming = CauseLog(log, "cannot confirm", is_warning=True)
        self._waits = (0, "")
        """The `seq` of a command, and what is known of why it does not finish."""
        self._fullness = Fullness()
        self._unfinished: dict[str, int] = {}
        self._unsent: set[int] = set()
        self._given_at_s: dict[int, float] = {}
        self.take(spool.entries())

    def give(self, entries: Sequence[NewEntry]) -> None:
        """Keep commands. Raises: StoreUnavailable when the spool is full; none is kept then."""
        with self.changed:
            if self.stopping.is_set():
                raise StoreUnavailable("the client is closed")
            try:
                kept = self.spool.append(entries)
            except StoreUnavailable as refusal:
                if problem := self._problem():
                    raise StoreUnavailable(f"{refusal} (now: {problem})") from refusal
                raise
            self.take(kept)
            self._fullness.tell(self.spool, self._problem())

    def take(self, entries: Iterable[SpoolEntry]) -> None:
        """Care for commands that are in the spool."""
        now_s = time.monotonic()
        with self.changed:
            for entry in entries:
                self.schedule.add(entry)
                self._given_at_s[entry.seq] = now_s
                self._unsent.add(entry.seq)
                self._unfinished[entry.record_id] = self._unfinished.get(entry.record_id, 0) + 1
            self.changed.notify_all()

    def note_sent(self, entries: Iterable[SpoolEntry]) -> None:
        """The broker has these."""
        with self.changed:
            self._unsent.difference_update(entry.seq for entry in entries)
            self.changed.notify_all()
        self.sent.set()

    def finish(self, finished: Sequence[Finished], rejections: Iterable[Rejection | None]) -> None:
        """Let go of what has finished; `rejections` are what the bot must hear of each."""
        with self.changed:
            self.spool.remove([one.entry.seq for one in finished])
            for one in finished:
                self.schedule.finish(one.entry)
                self._forget(one.entry)
            self.rejections.extend(rejection for rejection in rejections if rejection is not None)
            self._fullness.tell(self.spool, self._problem())
            self.changed.notify_all()

    def stop(self) -> None:
        """Have the threads end, and give back what waits for something here."""
        self.stopping.set()
        self.sent.set()
        with self.changed:
            self.changed.notify_all()

    def lag(self) -> Lag:
        """How far the pool is behind."""
        with self.changed:
            oldest_at_s = next(iter(self._given_at_s.values()), None)
            return Lag(
                commands=len(self.spool),
                unsent=len(self._unsent),
                room=self.spool.room,
                oldest_s=0.0 if oldest_at_s is None else time.monotonic() - oldest_at_s,
                problem=self._problem(),
            )

    def oldest_sent(self, queue: str, *, waiting_s: float) -> SpoolEntry | None:
        """What was sent first on `queue` and has not finished, if it has been waiting for so long."""
        with self.changed:
            for message in self.schedule.under_way(lambda _: 1).get(queue, ()):
                entry = message.waiting[0]
                if time.monotonic() - self._given_at_s[entry.seq] >= waiting_s:
                    return entry
        return None

    def explain(self, entry: SpoolEntry | None, problem: str = "") -> None:
        """Tell `problem` as why `entry` does not finish, until it has; of None: nothing is known."""
        self._waits = (entry.seq, problem) if entry is not None else (0, "")

    def unfinished(self, record_id: str | None = None) -> int:
        """Commands, of one record or of all, that the pool has neither journaled nor refused."""
        return len(self.spool) if record_id is None else self._unfinished.get(record_id, 0)

    def unsent(self) -> int:
        """Commands that the broker has never been given."""
        return len(self._unsent)

    def _problem(self) -> str:
        seq, waits_for = self._waits
        return self.sending.cause or self.confirming.cause or (waits_for if seq in self._given_at_s else "")

    def _forget(self, entry: SpoolEntry) -> None:
        del self._given_at_s[entry.seq]
        left = self._unfinished[entry.record_id] - 1
        if left:
            self._unfinished[entry.record_id] = left
        else:
            del self._unfinished[entry.record_id]
