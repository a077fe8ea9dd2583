"""Which commands to look up in the store: those that may have come to an end since somebody looked.

A command ends in one of two ways: its commit is journaled, and then the journal has moved in its shard;
or it leaves an answer, and then the store has counted one. Where neither has happened since the command
was looked up last, it cannot have ended. Of a message whose commands all wait only one is looked up at a
time, for workers apply a message as a whole; and messages are taken from a queue in turn, so those behind
the ones that workers have in hand are left alone until those have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import islice

from tradepool.client.look import Look
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry

__all__ = ["LOOKED_UP_MAX", "Inquiry"]

LOOKED_UP_MAX = 1000
"""Commands looked up at a time."""
WINDOW_MIN = 8
"""Messages beyond those that have lately ended which are looked at."""


class Inquiry:
    """Chooses among what was sent to one queue; `shard_of` tells an entry's shard, None if that is unknown.

    No clock, no server. For one thread.
    """

    def __init__(self, shard_of: Callable[[SpoolEntry], int | None]) -> None:
        self._shard_of = shard_of
        self._looks: dict[int, Look] = {}
        """By `seq`: what was known before the entry was looked up last; longest ago first."""
        self.window = WINDOW_MIN
        """How many of the oldest messages to look at: twice as far as the newest in which something moved."""

    def choose(self, messages: Sequence[Message], known: Container[int], look: Look) -> list[SpoolEntry]:
        """Up to `LOOKED_UP_MAX` entries of `messages` that are worth looking up, given `look`.

        Those whose `seq` is in `known` have been found.
        """
        chosen: list[SpoolEntry] = []
        for message in messages:
            unknown = [entry for entry in message.waiting if entry.seq not in known]
            if len(unknown) == message.size and (fresh := self._never_looked_up(unknown)):
                chosen.append(fresh)
            else:
                chosen += [entry for entry in unknown if self._may_have_ended(entry, look)]
        if len(chosen) > LOOKED_UP_MAX:
            turn = {seq: place for place, seq in enumerate(self._looks)}
            chosen.sort(key=lambda entry: turn.get(entry.seq, -1))
        return chosen[:LOOKED_UP_MAX]

    def may_have_answered(self, entry: SpoolEntry, look: Look) -> bool:
        """Whether the entry may have left an answer, given `look`."""
        before = self._looks.get(entry.seq)
        return before is None or before.answered != look.answered

    def note(self, looked_up: Sequence[SpoolEntry], look: Look) -> None:
        """`looked_up` were looked up after `look`."""
        for entry in looked_up:
            self._looks.pop(entry.seq, None)
            self._looks[entry.seq] = look

    def adapt(self, messages: Sequence[Message], found: Container[int]) -> None:
        """Look as far as things move: the pool has moved, and `found` of `messages` were found."""
        moved = [place for place, (_, waiting) in enumerate(messages) if any(e.seq in found for e in waiting)]
        if moved:
            self.window = WINDOW_MIN + 2 * (moved[-1] + 1)
        else:
            self.window = min(2 * self.window, WINDOW_MIN + 2 * len(messages))

    def forget(self, seqs: Sequence[int]) -> None:
        """These have ended."""
        for seq in seqs:
            self._looks.pop(seq, None)

    def forget_looks(self, count_max: int | None = None) -> None:
        """Have entries be looked up again whatever has moved: the up to `count_max` longest ago, or all."""
        self.forget(list(islice(self._looks, count_max)))

    def _never_looked_up(self, entries: Sequence[SpoolEntry]) -> SpoolEntry | None:
        return next((entry for entry in entries if entry.seq not in self._looks), None)

    def _may_have_ended(self, entry: SpoolEntry, look: Look) -> bool:
        before = self._looks.get(entry.seq)
        if before is None or before.answered != look.answered:
            return True
        shard = self._shard_of(entry)
        return (
            before.reached != look.reached if shard is None else before.reached[shard] != look.reached[shard]
        )
