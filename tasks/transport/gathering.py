"""What a consumer has in hand: room for more, messages noted already, and what becomes of finished ones."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as redis_transport
from kombu.transport import virtual

__all__ = ["AtomicQoS"]

TAKE_MAX = 100
"""Messages in one take, also for a consumer without a prefetch limit."""

_QoS: Any = redis_transport.QoS


class AtomicQoS(_QoS):
    """Knows which messages are noted already, and gathers acknowledgements for the next exchange."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._noted: set[str] = set()

    def room(self) -> int:
        """How many messages may be taken now."""
        if not self.can_consume():
            return 0
        if "can_consume" in vars(self):
            # A worker with --disable-prefetch has put its own rule there, which knows no number.
            return 1
        room = self.can_consume_max_estimate()
        return TAKE_MAX if room is None else min(room, TAKE_MAX)

    def expect(self, tag: str) -> None:
        """The message with this tag is noted, and about to be delivered."""
        self._noted.add(tag)

    def is_expected(self, tag: str) -> bool:
        """Whether the message with this tag has not come yet."""
        return tag in self._noted

    def came(self, tag: str) -> None:
        """The message with this tag is delivered."""
        self._noted.discard(tag)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a delivered message; one that no script took is noted as kombu does it."""
        if self.is_expected(delivery_tag):
            self.came(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Have a message forgotten; see `AtomicChannel.forget` for when."""
        virtual.QoS.ack(self, delivery_tag)
        self.channel.forget(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Put a message back on its queue, or have it forgotten."""
        if requeue:
            super().reject(delivery_tag, requeue=True)
        else:
            self.ack(delivery_tag)
