"""What was computed from a user's trades, kept until the user's next change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["UserCache"]

V = TypeVar("V")

_ENTRIES_MAX = 1024


class UserCache(Generic[V]):
    """Values per user and question, the `entries_max` last used, in this process.

    `revision` tells the user's state apart from every other (`RedisStore.revision`): it is asked each
    time, so a value is never older than the user's last change. Threads share an instance.
    """

    def __init__(self, revision: Callable[[str], str], *, entries_max: int = _ENTRIES_MAX) -> None:
        self._revision = revision
        self._entries_max = entries_max
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, Hashable], tuple[str, V]] = OrderedDict()

    def get(self, user_id: str, question: Hashable, compute: Callable[[], V]) -> V:
        """The answer to `question` about the user: the kept one, or what `compute` returns.

        The revision is read before computing: a change in between makes the kept value too old, never
        too new. Raises: what `compute` and `revision` raise.
        """
        revision = self._revision(user_id)
        entry = (user_id, question)
        with self._lock:
            kept = self._entries.get(entry)
            if kept is not None and kept[0] == revision:
                self._entries.move_to_end(entry)
                return kept[1]
        value = compute()
        with self._lock:
            self._entries[entry] = (revision, value)
            self._entries.move_to_end(entry)
            while len(self._entries) > self._entries_max:
                self._entries.popitem(last=False)
        return value
