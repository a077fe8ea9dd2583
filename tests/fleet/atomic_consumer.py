"""A consumer in this process whose event loop a test turns by hand, on either transport."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub
from kombu.transport import redis as redis_transport

from tasks import reliability
from tasks.transport.atomic import AtomicTransport
from tests.waiting import eventually

__all__ = ["StockTransport", "TurnedConsumer", "publisher"]

StockTransport = redis_transport.Transport
QUEUES = ("a", "b")
TURN_S = 0.02


class TurnedConsumer:
    """Keeps every message until the test acknowledges it. A context manager; leaving it closes."""

    def __init__(
        self,
        url: str,
        transport: type = AtomicTransport,
        *,
        prefetch: int = 0,
        queues: Sequence[str] = QUEUES,
        no_ack: bool = False,
        **options: Any,
    ) -> None:
        reliability.guard_restarts()
        reliability.guard_acknowledgements()
        reliability.guard_messages()
        self.received: list[Any] = []
        """Messages in the order of arrival."""
        self.on_message: Callable[[Any], None] = self.received.append
        self.connection = Connection(url, transport=transport, transport_options=options)
        self.hub = Hub()
        self.hub.propagate_errors = (Exception,)
        self.channel = self.connection.channel()
        self.consumer = Consumer(self.channel, [Queue(name) for name in queues], no_ack=no_ack)
        self.consumer.on_message = self._take
        if prefetch:
            self.consumer.qos(prefetch_count=prefetch)
        self.connection.register_with_event_loop(self.hub)
        self.hub.call_repeatedly(TURN_S, bool)
        self.consumer.consume()

    @property
    def bodies(self) -> list[str]:
        """What has been received."""
        return [_text(message.body) for message in self.received]

    def turn(self) -> None:
        """One turn of the event loop; it waits for `TURN_S` at most."""
        self.hub.run_once()

    def turn_until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until `condition` holds."""

        def turned() -> object:
            self.turn()
            return condition()

        eventually(turned)

    def rest(self) -> None:
        """Turn until all queues were found empty, and the server will tell of the next message."""
        self.turn_until(lambda: self.channel._brpop_sent_at)
        if isinstance(self.connection.transport, AtomicTransport):
            self.turn_until(lambda: not self.channel._in_poll)

    def drop(self) -> None:
        """Lose the connection and everything known about it, as the end of the process does."""
        self.channel.qos._delivered.clear()
        self.channel.qos.restore_at_shutdown = False
        self.channel._in_poll = None
        with contextlib.suppress(Exception):
            self.hub.reset()

    def _take(self, message: Any) -> None:
        self.on_message(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hub.close()
        with contextlib.suppress(*self.connection.connection_errors):
            self.connection.close()


@contextmanager
def publisher(url: str) -> Iterator[Callable[..., None]]:
    """Sends texts to queues with kombu's own transport, as any program does."""
    with Connection(url, transport=StockTransport) as connection:
        producer = connection.Producer(serializer="raw")

        def publish(queue: str, *texts: str, priority: int = 0) -> None:
            for text in texts:
                producer.publish(text.encode(), exchange="", routing_key=queue, priority=priority)

        yield publish


def _text(body: Any) -> str:
    return bytes(body).decode() if isinstance(body, bytes | memoryview) else str(body)
