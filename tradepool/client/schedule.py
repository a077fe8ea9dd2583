"""What to send next: the order of commands per record, and which of them to send again.

A record's commands travel in the order they were given. Workers take messages side by side, so the
next command of a record is sent only in the same message as the one before it, or after the pool has
journaled or refused that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from tradepool.client.spool import SpoolEntry

__all__ = ["Schedule"]

RESEND_DOUBLINGS_MAX = 6
"""A command that stays unconfirmed is sent again after 1, 2, 4 … 64 times the first pause."""


@dataclass(kw_only=True, slots=True)
class _Sent:
    entry: SpoolEntry
    due_at: float
    """When to send again, in seconds of the caller's clock."""
    resends: int = 0


@dataclass(slots=True)
class _Lane:
    """The commands of one record: under way, and behind them."""

    under_way: set[int] = field(default_factory=set)
    behind: deque[SpoolEntry] = field(default_factory=deque)


class Schedule:
    """Entries on their way from given to confirmed. No clock and no locks of its own."""

    def __init__(self, *, resend_s: float) -> None:
        self._resend_s = resend_s
        self._ready: deque[SpoolEntry] = deque()
        self._lanes: dict[str, _Lane] = {}
        self._sent: dict[int, _Sent] = {}

    @property
    def ready(self) -> int:
        """Entries that may be sent now, as far as is known."""
        return len(self._ready)

    @property
    def any_under_way(self) -> bool:
        """Whether an entry was sent and has not finished."""
        return bool(self._sent)

    def add(self, entry: SpoolEntry) -> None:
        """Take a new entry; entries come in the order of their `seq`."""
        self._ready.append(entry)

    def next_batch(self, size_max: int, now_s: float) -> list[SpoolEntry]:
        """Up to `size_max` entries of one queue to send together, in order; they count as sent."""
        batch: list[SpoolEntry] = []
        taken: set[int] = set()
        skipped: list[SpoolEntry] = []
        while self._ready and len(batch) < size_max:
            entry = self._ready.popleft()
            lane = self._lanes.setdefault(entry.record_id, _Lane())
            if lane.behind or not lane.under_way <= taken:
                lane.behind.append(entry)
            elif batch and entry.queue != batch[0].queue:
                skipped.append(entry)
            else:
                batch.append(entry)
                taken.add(entry.seq)
                lane.under_way.add(entry.seq)
        self._ready.extendleft(reversed(skipped))
        self._sent |= {e.seq: _Sent(entry=e, due_at=now_s + self._resend_s) for e in batch}
        return batch

    def under_way(self, count_max: int) -> list[SpoolEntry]:
        """Up to `count_max` entries that were sent and have not finished, in turn."""
        seqs = list(islice(self._sent, count_max))
        for seq in seqs:
            self._sent[seq] = self._sent.pop(seq)
        return [self._sent[seq].entry for seq in seqs]

    def overdue(self, size_max: int, now_s: float) -> list[SpoolEntry]:
        """Up to `size_max` entries of one queue to send again, in order; their next turn is later.

        A record's entries go together, or a worker could take a later one before an earlier one.
        """
        again: list[_Sent] = []
        for group in self._overdue_groups(now_s):
            if again and len(again) + len(group) > size_max:
                break
            again += group
        for sent in again:
            sent.resends = min(sent.resends + 1, RESEND_DOUBLINGS_MAX)
            sent.due_at = now_s + self._resend_s * 2**sent.resends
        return sorted(sent.entry for sent in again)

    def _overdue_groups(self, now_s: float) -> Iterable[list[_Sent]]:
        """What is under way of each record that is overdue, in the queue of the oldest, oldest first."""
        due = sorted(sent.entry for sent in self._sent.values() if sent.due_at <= now_s)
        groups: dict[str, list[_Sent]] = {e.record_id: [] for e in due if e.queue == due[0].queue}
        for _, sent in sorted(self._sent.items()):
            if sent.entry.record_id in groups and sent.entry.queue == due[0].queue:
                groups[sent.entry.record_id].append(sent)
        return groups.values()

    def postpone(self, now_s: float) -> None:
        """Wait another pause before sending again: what is overdue is still queued at the fleet."""
        for sent in self._sent.values():
            sent.due_at = max(sent.due_at, now_s + self._resend_s)

    def finish(self, entry: SpoolEntry) -> None:
        """The pool has the entry, or refused it: the next of its record may go."""
        if self._sent.pop(entry.seq, None) is None:
            return
        lane = self._lanes[entry.record_id]
        lane.under_way.discard(entry.seq)
        if not lane.under_way:
            del self._lanes[entry.record_id]
            self._ready.extendleft(reversed(lane.behind))
