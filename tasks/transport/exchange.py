"""One call of exchange.lua: what it acknowledges, what it may take, and what its answer says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from tasks.transport import notes

__all__ = ["SCRIPT", "Exchange", "Taken"]

SCRIPT = (resources.files("tasks.transport") / "exchange.lua").read_text("utf-8")
_SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_KEYS_BEFORE_LISTS = 2

Taken = tuple[str, str, bytes]
"""A message that was taken: the tag it is noted under, its queue, and itself as it lay there."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One call of the script."""

    beginning: str
    """Of the tags of what it takes."""
    room: int
    """How many messages it may take."""
    queues: tuple[str, ...]
    """Those to take from, in turn."""
    unnoted: frozenset[str]
    """Those among them whose messages nobody acknowledges."""
    acknowledged: tuple[str, ...]
    """Tags of messages to forget."""

    def tags(self) -> list[str]:
        """Those under which messages may be noted."""
        return [self._tag(number) for number in range(1, self.room + 1)]

    def command(self, keys: Sequence[str]) -> list[str | int]:
        """The server's command. `keys`: unacknowledged messages, their index, and the lists by priority."""
        endings = ["" if queue in self.unnoted else notes.ending(queue) for queue in self.queues]
        about: tuple[str | int, ...] = (self.room, self.beginning, len(endings), *endings, *self.acknowledged)
        return ["EVALSHA", _SCRIPT_SHA, len(keys), *keys, *about]

    def taken(self, answer: Sequence[object]) -> Iterator[Taken]:
        """What the script's answer brings, in the order to deliver it."""
        pairs = zip(answer[::2], answer[1::2], strict=True)
        for number, (message, place) in enumerate(pairs, start=1):
            assert isinstance(message, bytes), "messages are not decoded by the connection"
            assert isinstance(place, int), "a place among the keys"
            yield self._tag(number), self.queues[(place - _KEYS_BEFORE_LISTS - 1) % len(self.queues)], message

    def _tag(self, number: int) -> str:
        return f"{self.beginning}-{number}"
