"""What to send next: the order of commands per record, and which of them to send again.

A record's commands travel in the order they were given. Workers take messages side by side, so the
next command of a record is sent only in the same message as the ones before it, or after the pool has
journaled or refused those. A command may belong to two records: a trade with a reservation, and the
ledger it is made in.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import msgspec

from tradepool.client.spool import SpoolEntry

__all__ = ["POSTPONED_MAX", "Message", "Schedule"]

POSTPONED_MAX = 5
"""How often sending again is put off while the fleet's queue is long."""
RESEND_DOUBLINGS_MAX = 6
"""A command that stays unconfirmed is sent again after 1, 2, 4 … 64 times the first pause."""


class Message(NamedTuple):
    """What has not finished of the commands that were sent together."""

    size: int
    """How many commands were sent in it."""
    waiting: list[SpoolEntry]
    """In the order they were given."""


class _Sent(msgspec.Struct, kw_only=True, gc=False):
    entry: SpoolEntry
    message: int
    """The `seq` of the first command of its message."""
    due_at: float
    """When to send again, in seconds of the caller's clock."""
    resends: int = 0
    postponed: int = 0
    """How often in a row it was not sent again because the queue was long."""


@dataclass(slots=True)
class _Lane:
    """The commands of one record: under way (by `seq`), and in order those that wait."""

    under_way: set[int] = field(default_factory=set)
    behind: list[SpoolEntry] = field(default_factory=list)


class Schedule:
    """Entries on their way from given to confirmed. No clock and no locks of its own."""

    def __init__(self, *, resend_s: float) -> None:
        self._resend_s = resend_s
        self._ready: list[SpoolEntry] = []
        """A heap, so that what comes back from behind has its old place."""
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
        self._sent: dict[int, _Sent] = {}
        self._messages: defaultdict[str, dict[int, tuple[int, dict[int, _Sent]]]] = defaultdict(dict)
        """Under way on each queue, oldest first: by the `seq` of its first command a message's size, and what
        waits of it."""

    @property
    def ready(self) -> int:
        """Entries that may be sent now, as far as is known."""
        return len(self._ready)

    @property
    def any_under_way(self) -> bool:
        """Whether an entry was sent and has not finished."""
        return bool(self._sent)

    def is_worth_sending(self, size: int) -> bool:
        """Whether to wait for no more company: a message of `size` is full, or nothing is under way.

        A bot's single trade goes at once so, and what comes until that has finished is the next message.
        """
        return self.ready >= size or not self._sent

    def add(self, entry: SpoolEntry) -> None:
        """Take a new entry; entries come in the order of their `seq`."""
        heapq.heappush(self._ready, entry)

    def next_batch(self, size_max: int, now_s: float) -> list[SpoolEntry]:
        """Up to `size_max` entries of one queue to send together, in order; they count as sent."""
        batch: list[SpoolEntry] = []
        taken: set[int] = set()
        skipped: list[SpoolEntry] = []
        passed_over: set[str] = set()
        while self._ready and len(batch) < size_max:
            entry = heapq.heappop(self._ready)
            if self._must_wait(entry, taken):
                self._put_behind(entry)
            elif (batch and entry.queue != batch[0].queue) or not passed_over.isdisjoint(entry.records):
                skipped.append(entry)
                passed_over.update(entry.records)
            else:
                batch.append(entry)
                taken.add(entry.seq)
                for lane in self._lanes_of(entry):
                    lane.under_way.add(entry.seq)
        for entry in skipped:
            heapq.heappush(self._ready, entry)
        self._note_sent(batch, now_s)
        return batch

    def under_way(self, count_max: Callable[[str], int]) -> dict[str, list[Message]]:
        """By queue the messages sent first that have not finished, up to `count_max` of the queue."""
        return {
            queue: [
                Message(size, [sent.entry for sent in waiting.values()])
                for size, waiting in islice(messages.values(), count_max(queue))
            ]
            for queue, messages in self._messages.items()
            if messages
        }

    def overdue(self, size_max: int, now_s: float) -> list[SpoolEntry]:
        """Up to `size_max` entries of one queue to send again, in order; their next turn is later.

        What is left of a message goes together, for only there can one command of a record stand behind
        another: a worker could take a later one before an earlier one.
        """
        again: list[_Sent] = []
        for message in self._overdue_messages(now_s):
            if again and len(again) + len(message) > size_max:
                break
            again += message
        for sent in again:
            sent.resends = min(sent.resends + 1, RESEND_DOUBLINGS_MAX)
            sent.due_at = now_s + self._resend_s * 2**sent.resends
        return sorted(sent.entry for sent in again)

    def postpone(self, again: Iterable[SpoolEntry], now_s: float) -> list[SpoolEntry]:
        """Have what is overdue wait another pause, for it may still be in a long queue.

        `again` is what `overdue` has just told. What of it has waited so for too long comes back, to be sent
        all the same: its message may be lost, and the queue long for ever.
        """
        for sent in self._sent.values():
            sent.due_at = max(sent.due_at, now_s + self._resend_s)
        late = []
        for sent in (self._sent[entry.seq] for entry in again if entry.seq in self._sent):
            sent.postponed = (sent.postponed + 1) % (POSTPONED_MAX + 1)
            if not sent.postponed:
                late.append(sent.entry)
                continue
            sent.resends -= 1
            sent.due_at = now_s + self._resend_s
        return late

    def finish(self, entry: SpoolEntry) -> None:
        """The pool has the entry, or refused it: the next of its records may go."""
        sent = self._sent.pop(entry.seq, None)
        if sent is None:
            return
        messages = self._messages[entry.queue]
        _, waiting = messages[sent.message]
        del waiting[entry.seq]
        if not waiting:
            del messages[sent.message]
        for record_id in entry.records:
            lane = self._lanes[record_id]
            lane.under_way.discard(entry.seq)
            if not lane.under_way:
                self._release(record_id)

    def _must_wait(self, entry: SpoolEntry, taken: set[int]) -> bool:
        """Whether an earlier command of one of its records waits, or is under way in another message."""
        return any(
            (lane.behind and lane.behind[0] < entry) or not lane.under_way <= taken
            for lane in self._lanes_of(entry)
        )

    def _put_behind(self, entry: SpoolEntry) -> None:
        for lane in self._lanes_of(entry):
            insort(lane.behind, entry)

    def _release(self, record_id: str) -> None:
        """Nothing of the record is under way: what waits for it may be looked at anew.

        So may what waits behind that in its other record.
        """
        idle = {record_id}
        while idle:
            released_id = idle.pop()
            for entry in self._lanes.pop(released_id).behind:
                heapq.heappush(self._ready, entry)
                for other_id in entry.records:
                    if other_id != released_id:
                        other = self._lanes[other_id]
                        del other.behind[bisect_left(other.behind, entry)]
                        if not other.under_way:
                            idle.add(other_id)

    def _lanes_of(self, entry: SpoolEntry) -> list[_Lane]:
        return [self._lanes[record_id] for record_id in entry.records]

    def _note_sent(self, batch: list[SpoolEntry], now_s: float) -> None:
        if not batch:
            return
        due_at, message = now_s + self._resend_s, batch[0].seq
        sent = {entry.seq: _Sent(entry=entry, message=message, due_at=due_at) for entry in batch}
        self._sent.update(sent)
        self._messages[batch[0].queue][message] = len(batch), sent

    def _overdue_messages(self, now_s: float) -> list[list[_Sent]]:
        """What is under way of each message that is overdue, in the queue of the oldest, oldest first."""
        due = sorted((sent for sent in self._sent.values() if sent.due_at <= now_s), key=_seq)
        if not due:
            return []
        queue = due[0].entry.queue
        overdue = dict.fromkeys(sent.message for sent in due if sent.entry.queue == queue)
        messages = self._messages[queue]
        return [list(messages[message][1].values()) for message in overdue]


def _seq(sent: _Sent) -> int:
    return sent.entry.seq
