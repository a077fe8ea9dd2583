"""What a process still owes a broker: acknowledgements to send, and takes whose answers were lost."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

__all__ = ["Unsettled", "unsettled_of"]


class Unsettled:
    """Outlives the connections of its process: what one has lost, the next one settles. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tags: deque[str] = deque()
        self._lost: deque[tuple[str, ...]] = deque()

    def __bool__(self) -> bool:
        """Whether there are tags to acknowledge."""
        return bool(self._tags)

    def acknowledge(self, tags: Sequence[str]) -> None:
        """Have messages forgotten by the broker, soon. To acknowledge one twice does no harm."""
        self._tags.extend(tags)

    def tags(self, count_max: int) -> list[str]:
        """Take out the oldest tags to acknowledge, `count_max` at most."""
        with self._lock:
            return [self._tags.popleft() for _ in range(min(count_max, len(self._tags)))]

    def lose(self, tags: Sequence[str]) -> None:
        """Note that messages may have been taken, under `tags`, that no consumer has seen."""
        self._lost.append(tuple(tags))

    def lost(self) -> tuple[str, ...]:
        """The tags of the latest such messages, the oldest message first; none when all are `found`."""
        with self._lock:
            return self._lost[-1] if self._lost else ()

    def found(self, tags: Sequence[str]) -> None:
        """The messages with these tags, which `lost` gave, are on their queues."""
        # Another thread may have put back the same ones, which does no harm.
        with self._lock, suppress(ValueError):
            self._lost.remove(tuple(tags))


def unsettled_of(broker: str) -> Unsettled:
    """What this process owes `broker` (its URL without a password); a forked child owes nothing."""
    return _unsettled(os.getpid(), broker)


@cache
def _unsettled(_pid: int, _broker: str) -> Unsettled:
    return Unsettled()
