"""Sending chunks of commands to the fleet, without the fleet's code."""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self
from uuid import uuid4

import orjson
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel
from redis.exceptions import RedisError

from tradepool import wire
from tradepool.clock import now_us
from tradepool.errors import StoreUnavailable
from tradepool.settings import Settings
from tradepool.store.address import broker_address, broker_name
from tradepool.store.asking import ask_all
from tradepool.store.connection import connect_broker
from tradepool.store.translation import causes, of_redis, translated

__all__ = ["ChangeSender", "lists_of", "queue_named"]

_HEALTH_CHECK_S = 10
_RETRIES_MAX = 1
"""For a connection that was cut while nobody used it; whoever sends has pauses of its own."""
_BODY = b'[[[%b]],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
"""Arguments of a task, as Celery's protocol 2 has them: positional, named, and what else to call."""


def queue_named(name: str) -> Queue:
    """The durable queue `name`, bound to the direct exchange of the same name."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def lists_of(queue: str) -> list[str]:
    """Where kombu keeps the messages of `queue`: a list for each priority."""
    return [f"{queue}{Channel.sep}{step}" if step else queue for step in Channel.priority_steps]


class ChangeSender:
    """Puts commands on the fleet's queues as `tasks.trades.apply_changes` messages.

    It owns a small Celery app of its own: a bot that has another keeps it untouched.

    Raises: Misconfigured when the settings name no broker that Celery can use.
    """

    def __init__(self, settings: Settings) -> None:
        wire.register_encoder()
        self._app = Celery("tradepool-sender", set_as_current=False)
        broker = broker_address(settings)
        self._name = broker_name(settings)
        self._client = connect_broker(settings, retries_max=_RETRIES_MAX)
        self._origin = f"gen{os.getpid()}@{socket.gethostname()}"
        self._reply_to = str(uuid4())
        self._app.conf.update(
            broker_url=broker.celery_url,
            broker_use_ssl=broker.celery_tls,
            broker_transport_options={
                "socket_timeout": settings.socket_timeout_s,
                "socket_connect_timeout": settings.connect_timeout_s,
                "socket_keepalive": True,
                "health_check_interval": _HEALTH_CHECK_S,
                # One attempt per call; the caller has its own pauses, and may be asked to stop.
                "max_retries": 0,
            },
            task_serializer=wire.SERIALIZER,
            accept_content=[wire.SERIALIZER],
            task_ignore_result=True,
            # Whoever sends knows better when to try again: stable command ids make a repeat harmless.
            task_publish_retry=False,
        )

    def send(self, queue: str, commands: Sequence[object]) -> str:
        """Send one message with `commands` (in the form of `wire`) to `queue`; the id of its task.

        On return the broker has it. Raises: StoreUnavailable; the message may have been sent even so.
        Misconfigured when the broker refuses us.
        """
        return self.send_each(queue, [[wire.encode(command) for command in commands]])[0]

    def send_each(self, queue: str, messages: Sequence[Sequence[bytes]]) -> list[str]:
        """Send messages, each with the JSON of its commands, in one exchange; the ids of their tasks.

        They come to the queue in this order. Raises like `send`: any of them may have been sent then.
        """
        task_ids = [str(uuid4()) for _ in messages]
        made = map(self._message, [queue] * len(messages), task_ids, messages)
        with translated(self._name):
            ask_all(self._client, [("LPUSH", queue, message) for message in made])
        return task_ids

    def call(
        self, queue: str, task: str, args: Sequence[object], *, sent_at: int | None = None, **options: Any
    ) -> str:
        """Send a call of `task` with Celery's `options` to `queue`; its id.

        It was sent now, or at `sent_at` (µs since 1970) where it is one sent again. Raises like `send`.
        """
        with self._translated():
            sent = self._app.send_task(
                task,
                args=list(args),
                queue=queue_named(queue),
                headers={"sent_at": sent_at or now_us()},
                retry=False,
                **options,
            )
        task_id: str = sent.id
        return task_id

    def backlog(self, queue: str) -> int:
        """Messages waiting on `queue`. Raises: StoreUnavailable, Misconfigured."""
        with self._translated(), self._app.connection_for_write() as connection:
            return int(connection.default_channel._size(queue))  # noqa: SLF001 - kombu's only count without a declare

    def close(self) -> None:
        """Close the broker connections."""
        self._client.close()
        self._app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _message(self, queue: str, task_id: str, commands: Sequence[bytes]) -> bytes:
        """A call of the task that takes commands, as kombu puts it on a list.

        A twentieth of the time that Celery and kombu need for it; a test holds the two together.
        """
        told = f"<{len(commands)} changes>"
        return orjson.dumps(
            {
                "body": b64encode(_BODY % b",".join(commands)).decode(),
                "content-encoding": "utf-8",
                "content-type": wire.CONTENT_TYPE,
                "headers": {
                    "lang": "py",
                    "task": wire.APPLY_CHANGES,
                    "id": task_id,
                    "shadow": None,
                    "eta": None,
                    "expires": None,
                    "group": None,
                    "group_index": None,
                    "retries": 0,
                    "timelimit": [None, None],
                    "root_id": task_id,
                    "parent_id": None,
                    "argsrepr": told,
                    "kwargsrepr": "{}",
                    "origin": self._origin,
                    "ignore_result": None,
                    "replaced_task_nesting": 0,
                    "stamped_headers": None,
                    "stamps": {},
                    "sent_at": now_us(),
                },
                "properties": {
                    "correlation_id": task_id,
                    "reply_to": self._reply_to,
                    "argsrepr": told,
                    "delivery_mode": 2,
                    "delivery_info": {"exchange": "", "routing_key": queue},
                    "priority": 0,
                    "body_encoding": "base64",
                    "delivery_tag": str(uuid4()),
                },
            }
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._broker_errors as problem:
            behind = next((cause for cause in causes(problem) if isinstance(cause, RedisError)), None)
            known = None if behind is None else of_redis(behind, self._name)
            if known is not None:
                raise known from problem
            name, variable = self._name
            raise StoreUnavailable(
                f"{name} cannot be reached: {problem}; start the server {variable} names"
            ) from problem

    @property
    def _broker_errors(self) -> tuple[type[BaseException], ...]:
        connection: Any = self._app.connection_for_write()
        return (OperationalError, *connection.connection_errors, *connection.channel_errors)
