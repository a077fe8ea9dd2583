"""What keeps a worker honest: the guards of restarts, acknowledgements and messages, the quiet watchdog.

Each answers a failure met on celery and kombu 5.7 with Redis; the tests beside them show it.
"""

from __future__ import annotations

import base64
import functools
import os
import threading
import time
import uuid
from typing import Any, Literal

import msgspec
import orjson
import redis
from celery import bootsteps
from celery.worker import state
from kombu.transport import redis as redis_transport
from kombu.transport import virtual
from kombu.transport.redis import Channel, QoS

from tasks.transport import notes
from tradepool.broker import ChangeSender
from tradepool.errors import Misconfigured, StoreUnavailable
from tradepool.logger import Logger

__all__ = ["QuietWatchdog", "guard_acknowledgements", "guard_messages", "guard_restarts"]

log = Logger(__name__)

QUIET_S = 45.0
"""How long messages may wait untaken, with this worker idle, before it is taken for dead."""
CHECK_EVERY_S = 10.0
EXIT_QUIET = 75
"""The exit code of a worker that stopped taking messages (EX_TEMPFAIL)."""


def guard_restarts() -> None:
    """Keep a worker alive when its broker restarts; calling it again changes nothing.

    A channel that has lost its connection is still asked to put messages back and to acknowledge what
    tasks finish meanwhile. kombu then meets a connection that is None, and the AttributeError ends the
    worker. A lost connection is a connection error, which the worker knows how to survive; and there is
    nothing to restore: the visibility timeout redelivers.
    """
    if getattr(QoS.restore_unacked_once, "guarded", False):
        return
    restore: Any = QoS.restore_unacked_once
    connparams: Any = Channel._connparams  # noqa: SLF001 - where every new client of a channel begins

    @functools.wraps(restore)
    def restore_unacked_once(self: Any, stderr: Any = None) -> None:
        if _attached(self.channel):
            restore(self, stderr)
            return
        self._on_collect.cancel()
        self._delivered.clear()
        self._delivered.restored = True

    @functools.wraps(connparams)
    def connparams_of_attached(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _attached(self):
            raise redis.ConnectionError("the channel has lost its connection")
        return connparams(self, *args, **kwargs)

    restore_unacked_once.guarded = True  # type: ignore[attr-defined]
    QoS.restore_unacked_once = restore_unacked_once  # type: ignore[method-assign]
    Channel._connparams = connparams_of_attached  # type: ignore[method-assign]  # noqa: SLF001 - as above


def guard_acknowledgements() -> None:
    """Free a message's place also when the broker cannot be told; calling it again changes nothing.

    A worker holds so many messages as it has threads. kombu counts one that could not be acknowledged, over a
    wire that is dead, for good, and Celery only logs it: a worker of one thread took nothing more. The broker
    gives such a message to another worker after the visibility timeout, where it is a duplicate.
    """
    if getattr(QoS.ack, "guarded", False):
        return
    for name in ("ack", "reject"):
        setattr(QoS, name, _freeing(getattr(QoS, name)))


def _freeing(settle: Any) -> Any:
    @functools.wraps(settle)
    def settle_and_free(self: Any, delivery_tag: str, *args: Any, **options: Any) -> None:
        try:
            settle(self, delivery_tag, *args, **options)
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)
            raise

    settle_and_free.guarded = True  # type: ignore[attr-defined]
    return settle_and_free


def guard_messages() -> None:
    """Have whatever lies on a queue reach the consumer: as itself, or as a message that it will park.

    kombu reads a message after Redis has given it away: an error there would lose it and end the worker.
    """
    if getattr(redis_transport.loads, "guarded", False):
        return
    original: Any = redis_transport.loads
    deliver: Any = redis_transport.Transport._deliver  # noqa: SLF001 - where every message enters kombu

    @functools.wraps(original)
    def loads(text: str) -> Any:
        try:
            found = original(text)
        except Exception:  # noqa: BLE001 - kombu's readers of typed values raise whatever they like
            found = text
        if _is_message(found) or notes.is_readable(found):
            return found
        note = notes.unreadable(text)
        if note is None:
            return found if isinstance(found, list) else text
        message, queue = note
        return [_wrapped(message, queue), "", queue]

    @functools.wraps(deliver)
    def deliver_messages(self: Any, message: Any, queue: str) -> None:
        text = ascii(message) if isinstance(message, list) else message
        deliver(self, _wrapped(text, queue) if isinstance(text, str) else message, queue)

    loads.guarded = True  # type: ignore[attr-defined]
    redis_transport.loads = loads  # type: ignore[assignment]
    redis_transport.Transport._deliver = deliver_messages  # type: ignore[method-assign]  # noqa: SLF001 - as above


class QuietWatchdog(bootsteps.StartStopStep):
    """Ends a worker that has stopped taking messages, so that its supervisor starts a new one.

    After a lost connection a threads worker can fall silent without an error. Quiet means: its queues
    held messages at every look for `QUIET_S`, it took none of them, and none is running.
    """

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._app = worker.app
        self._broker = ChangeSender(worker.app.settings)
        self._ended = threading.Event()

    def start(self, _worker: Any) -> None:
        """Watch from a thread: the event loop may be what has stopped."""
        self._ended.clear()
        threading.Thread(target=self._watch, name="quiet-watchdog", daemon=True).start()

    def stop(self, _worker: Any) -> None:
        """Stop watching; a worker that shuts down takes no messages."""
        self._ended.set()

    def close(self, _worker: Any) -> None:
        """Stop watching as soon as the shutdown begins."""
        self._ended.set()

    def _watch(self) -> None:
        quiet_since = time.monotonic()
        taken = -1
        while not self._ended.wait(CHECK_EVERY_S):
            taken_before, taken = taken, sum(state.total_count.values())
            if taken != taken_before or _busy() or not self._waiting_messages():
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= QUIET_S:
                log.critical("worker takes no messages; exiting", quiet_s=QUIET_S)
                os._exit(EXIT_QUIET)

    def _waiting_messages(self) -> int:
        """Messages in this worker's queues; none when the broker cannot say."""
        try:
            return sum(self._broker.backlog(queue) for queue in self._app.amqp.queues.consume_from)
        except (StoreUnavailable, Misconfigured) as problem:
            log.info("watchdog cannot reach the broker", problem=str(problem))
            return 0


def _attached(channel: Any) -> bool:
    return channel.connection is not None and getattr(channel.connection, "client", None) is not None


class _DeliveryInfo(msgspec.Struct, frozen=True, kw_only=True):
    exchange: str | None
    routing_key: str


class _Properties(msgspec.Struct, frozen=True, kw_only=True):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64", "utf-8"] | None = None
    priority: int | str | None = None


class _Headers(msgspec.Struct, frozen=True, kw_only=True):
    timelimit: tuple[float | None, float | None] | None = None


class _Message(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What kombu and Celery rely on in a message on a queue; whatever else it has is not their concern."""

    body: str
    properties: _Properties
    headers: _Headers = _Headers()
    content_type: str | None = None
    content_encoding: str | None = None


def _is_message(found: Any) -> bool:
    """Whether it has that shape and can be put back: neither nested too deeply nor half a surrogate pair."""
    try:
        message = msgspec.convert(found, _Message)
        if message.properties.body_encoding == "base64":
            base64.b64decode(message.body)
        orjson.dumps(found, default=str)
    except (ValueError, TypeError):
        return False
    return True


def _wrapped(text: str, queue: str) -> dict[str, Any]:
    """`text` as the body of a message in kombu's form that goes back to `queue` if it cannot be parked."""
    return {
        "body": base64.b64encode(text.encode("utf-8", "surrogatepass")).decode(),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_tag": uuid.uuid4().hex,
        },
    }


def _busy() -> bool:
    return bool(len(state.active_requests) or len(state.reserved_requests))
