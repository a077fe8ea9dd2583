"""What a worker tells Flower of its tasks goes out a few times a second, not with each turn of its loop."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

__all__ = ["EventBatches"]

FLUSH_EVERY_S = 0.25
"""How old an event may be when it is sent: nobody who watches looks more often."""
BATCH_MAX = 256
"""So many events are sent at once, before their time; some 300 bytes each."""


class EventBatches(bootsteps.StartStopStep):
    """Sends the events of tasks in batches.

    Celery sends what has gathered at the next turn of the loop, awaited by the loop: about once for each
    message, at a third of what the loop does for one. Events are not what anything relies on; those of the
    last moment are lost with a worker that is killed, as they were before.
    """

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None

    def include_if(self, consumer: Any) -> bool:
        """Where there is an event loop; elsewhere Celery sends each event by itself."""
        return consumer.hub is not None

    def start(self, consumer: Any) -> None:
        """Begin anew with each connection: it has a sender of its own, and the loop has lost its timers."""
        sender = consumer.event_dispatcher
        sender.on_send_buffered = None
        sender.buffer_limit = BATCH_MAX
        self._timer = consumer.hub.call_repeatedly(FLUSH_EVERY_S, sender.flush)

    def stop(self, _consumer: Any) -> None:
        """End with the connection; what it could not send waits for the next one."""
        if self._timer is not None:
            self._timer.cancel()

    def shutdown(self, consumer: Any) -> None:
        """Send what is left of a worker that leaves."""
        self.stop(consumer)
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush()
