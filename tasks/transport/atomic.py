"""A transport that takes messages and notes them as unacknowledged in one step of the server.

kombu pops a message and notes it afterwards; whoever dies in between loses it. Here one script does both,
for as many messages as there is room for, and acknowledges the finished ones on the same way. Keys and
their layout are kombu's, so that consumers of both kinds can work side by side.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from math import inf
from queue import Empty
from time import monotonic
from typing import Any
from uuid import uuid4

from kombu.transport import redis as redis_transport
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import AuthenticationError, NoScriptError, ResponseError

from tasks.transport.abilities import explaining_tracking, lacks_protocol
from tasks.transport.exchange import SCRIPT, Exchange, Taken
from tasks.transport.gathering import AtomicQoS
from tasks.transport.unsettled import Unsettled, unsettled_of

__all__ = ["AtomicTransport"]

TAGS_MAX = 1000
"""Acknowledgements in one exchange; fewer than Lua can unpack."""
AT_ONCE = -inf
"""When to look next: before any moment, however much is added to it."""

# Hardly a function of these has types.
_Channel: Any = redis_transport.Channel
_Poller: Any = redis_transport.MultiChannelPoller
_Transport: Any = redis_transport.Transport


class AtomicChannel(_Channel):
    """A channel whose consuming connection has at most one exchange under way.

    An exchange that found the queues empty leaves the connection tracking them: the server tells it of
    the next message, whoever sends it. kombu's poller and health check see an exchange as their BRPOP;
    `_in_poll` is the connection while one is under way.
    """

    QoS = AtomicQoS

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self._unsettled: Unsettled = unsettled_of(connection.client.as_uri())
        self._exchange: Exchange | None = None
        self._looks_at = AT_ONCE
        self._prepared: Any = None
        self._shared_client: Any = None
        self._unnoted_queues: set[str] = set()
        try:
            super().__init__(connection, **kwargs)
        except (AuthenticationError, ResponseError) as error:
            if refusal := lacks_protocol(super()._connparams(), error):
                raise refusal from error
            raise

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Consume from `queue`; with `no_ack` what is taken from it is not noted."""
        (self._unnoted_queues.add if no_ack else self._unnoted_queues.discard)(queue)
        self._looks_at = AT_ONCE
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def wants_exchange(self) -> bool:
        """Whether there is something to acknowledge, or room and a reason to look for messages."""
        if self._in_poll or not self.active_queues:
            return False
        return bool(self._unsettled) or (monotonic() >= self._looks_at and self.qos.can_consume())

    def forget(self, tag: str) -> None:
        """Acknowledge with the next exchange; at once when there will be none here.

        A message of a connection that is lost is acknowledged on the process's next one.
        """
        self._unsettled.acknowledge([tag])
        if self.connection is not None and not (self.connection.cycle.has_loop and self.active_queues):
            self.settle()

    def settle(self) -> None:
        """Send all acknowledgements now. Raises: the connection's errors; then they wait for next time."""
        while tags := self._unsettled.tags(TAGS_MAX):
            try:
                with self.qos.pipe_or_acquire() as pipe:
                    pipe.zrem(self.unacked_index_key, *tags).hdel(self.unacked_key, *tags).execute()
            except BaseException:  # whatever ended it, a signal too: these tags wait for the next time
                self._unsettled.acknowledge(tags)
                raise

    def close(self) -> None:
        """Settle everything, as far as the broker can be reached; then close as kombu does."""
        self._closing = True
        if not self.closed:
            with contextlib.suppress(*self.connection_errors, ResponseError):
                while self._in_poll:
                    self._read(self._in_poll)
                self._put_back_lost()
                self.settle()
        super().close()

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._shared_client is None or self._shared_client.connection_pool is not self.pool:
            self._shared_client = super()._create_client()
        return self._shared_client

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        # Only this protocol can tell of changed keys on the connection that asked.
        return {**super()._connparams(asynchronous), "protocol": 3}

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's signature
        """Send an exchange."""
        connection = self.client.connection
        self._prepare(connection)
        self._put_back_lost()
        self._exchange = exchange = Exchange(
            beginning=uuid4().hex,
            room=self._room(),
            queues=tuple(self._queue_cycle.consume(len(self.active_queues))),
            unnoted=frozenset(self._unnoted_queues),
            acknowledged=tuple(self._unsettled.tags(TAGS_MAX)),
        )
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in exchange.queues]
        keys = [self.global_keyprefix + key for key in (self.unacked_key, self.unacked_index_key, *lists)]
        self._looks_at = self._brpop_sent_at = monotonic()
        self._in_poll = connection
        # Not after a ping: one that fails would connect anew, and send this where nobody reads the answer.
        connection.send_command(*exchange.command(keys), check_health=False)

    def _room(self) -> int:
        """How many messages to take: one without an event loop, where `drain_events` means that many."""
        return int(self.qos.room() if self.connection.cycle.has_loop else min(self.qos.room(), 1))

    def _brpop_read(self, **_options: Any) -> bool:
        """Deliver what has arrived. Raises: Empty when no message has; the connection's errors."""
        connection = self.client.connection
        delivered = self._read(connection)
        # The parser may hold more than the socket shows.
        while connection._sock is not None and connection.can_read(timeout=0):  # noqa: SLF001 - it would connect
            delivered += self._read(connection)
        if not delivered:
            raise Empty
        return True

    def _poll_error(self, type: str, **options: Any) -> None:  # noqa: A002 - kombu's signature
        if type == "BRPOP":
            self._brpop_read()
        else:
            super()._poll_error(type, **options)

    def _prepare(self, connection: Any) -> None:
        """Have the server tell this connection of messages, and know the script; a restart forgets both."""
        if self._prepared is connection._sock:  # noqa: SLF001 - a connection that was lost has another socket
            return
        connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP", check_health=False)
        with explaining_tracking():
            connection.read_response()
        # Loaded, as kombu's own scripts are: a login that may run those need not be allowed EVAL.
        connection.send_command("SCRIPT", "LOAD", SCRIPT, check_health=False)
        connection.read_response()
        self._prepared = connection._sock  # noqa: SLF001 - as above

    def _read(self, connection: Any) -> int:
        """Read one answer or notice; how many messages it brought."""
        is_under_way = bool(self._in_poll)
        try:
            answer = connection.read_response(push_request=True)
        except NoScriptError:
            self._prepared = None
            self._unsettled.acknowledge(self._end_exchange().acknowledged)
            return 0
        except ResponseError:
            self._refused()
            raise
        except self.connection_errors:
            connection.disconnect()
            if is_under_way:
                raise
            return 0
        if type(answer) is not list:
            # The server tells of a queue that has changed; that is of another type, or nothing.
            self._looks_at = AT_ONCE
            return 0
        exchange = self._end_exchange()
        taken = list(exchange.taken(answer))
        if len(taken) < exchange.room:
            # Still at once, if a queue or a notice has come since the exchange was sent.
            self._looks_at += self.brpop_timeout
        return self._deliver_all(taken)

    def _deliver_all(self, messages: Iterable[Taken]) -> int:
        """Deliver messages; how many. Those that found nobody are put back later."""
        waiting = deque(messages)
        delivered = 0
        current = ""
        try:
            while waiting and not self._closing:
                current, queue, message = waiting.popleft()
                self._deliver(current, queue, message)
                delivered += 1
        finally:
            missed = [current] if self.qos.is_expected(current) else []
            if missed := missed + [tag for tag, _, _ in waiting]:
                self._unsettled.lose(missed)
        return delivered

    def _deliver(self, tag: str, queue: str, message: bytes) -> None:
        self._queue_cycle.rotate(queue)
        # Through its module, where guards may stand.
        readable = redis_transport.loads(bytes_to_str(message))
        if queue not in self._unnoted_queues:
            self.qos.expect(tag)
        if isinstance(readable, dict):
            readable["properties"]["delivery_tag"] = tag
        self.connection._deliver(readable, queue)  # noqa: SLF001 - as kombu's channel does
        if self.qos.is_expected(tag):
            # What cannot be read was delivered within another message, which is noted on its own.
            self.qos.came(tag)
            self.forget(tag)

    def _put_back_lost(self) -> None:
        """Put messages back on their queues that were taken for this process without its knowledge."""
        while tags := self._unsettled.lost():
            for tag in reversed(tags):
                self.qos.restore_by_tag(tag)
            self._unsettled.found(tags)

    def _refused(self) -> None:
        """The server has refused the exchange, or ended it in the middle."""
        self._lose_exchange()
        # A server that is out of memory takes these even so.
        with contextlib.suppress(*self.connection_errors, ResponseError):
            self.settle()

    def _lose_exchange(self) -> None:
        exchange = self._end_exchange()
        self._unsettled.acknowledge(exchange.acknowledged)
        self._unsettled.lose(exchange.tags())

    def _end_exchange(self) -> Exchange:
        exchange, self._exchange = self._exchange, None
        self._in_poll = None
        assert exchange is not None, "an answer that nobody asked for"
        return exchange

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._lose_exchange()
        self._looks_at = AT_ONCE
        super()._on_connection_disconnect(connection)


class AtomicPoller(_Poller):
    """Starts exchanges when channels want them, and reads what comes whether or not there is room."""

    has_loop = False
    """Whether an event loop turns this; without one nobody promises a next exchange."""

    def on_poll_start(self) -> None:
        """Send what there is to send before waiting."""
        for channel in self._channels:
            if channel.wants_exchange():
                self._register_BRPOP(channel)
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)

    def on_readable(self, fileno: int) -> None:
        """Read from a connection; an answer holds only messages that there was room for when it was asked."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is not None and kind == "BRPOP":
            channel.handlers[kind]()
        else:
            super().on_readable(fileno)

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Wait without an event loop, never longer than until the next look."""
        longest: float = AtomicTransport.brpop_timeout
        super().get(callback, longest if timeout is None else min(timeout, longest))


class AtomicTransport(_Transport):
    """kombu's Redis transport with atomic takes. A single server, Redis 7 or later."""

    Channel = AtomicChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = AtomicPoller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have `loop` turn the poller."""
        self.cycle.has_loop = True
        super().register_with_event_loop(connection, loop)
