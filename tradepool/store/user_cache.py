"""What was worked out from a user's trades, kept for the next question about him."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["Kept", "UserCache"]

V = TypeVar("V")


class Kept(Generic[V]):
    """One user's place in the cache, which one thread at a time may look at and change."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: V | None = None
        self.size = 0
        """What the value counts for, beside the place itself, which counts for 1."""


class UserCache(Generic[V]):
    """A value per user: those of the last used users whose sizes come to `size_max`, in this process.

    It does not know what is true: who borrows a value asks the store what has changed since.
    """

    def __init__(self, *, size_max: int) -> None:
        self._size_max = size_max
        self._lock = threading.Lock()
        self._users: OrderedDict[str, Kept[V]] = OrderedDict()
        self._counted: dict[str, int] = {}
        self._total = 0

    @contextmanager
    def borrow(self, user_id: str) -> Iterator[Kept[V]]:
        """The user's place, for this thread alone; its value is None at first and after an error in here."""
        with self._lock:
            kept = self._users.setdefault(user_id, Kept())
            self._users.move_to_end(user_id)
        with kept.lock:
            try:
                yield kept
            except BaseException:
                # What was being changed may be half changed.
                kept.value, kept.size = None, 0
                raise
            finally:
                self._settle(user_id, kept)

    def _settle(self, user_id: str, kept: Kept[V]) -> None:
        """Count what the place holds now, and forget the oldest ones that are too much."""
        with self._lock:
            # Others may have pushed it out while it was borrowed; then it ends with its borrower.
            if self._users.get(user_id) is kept:
                self._total += kept.size + 1 - self._counted.get(user_id, 0)
                self._counted[user_id] = kept.size + 1
            while self._total > self._size_max:
                oldest, _ = self._users.popitem(last=False)
                self._total -= self._counted.pop(oldest, 0)
