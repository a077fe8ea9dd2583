"""Whether a tick is stale: a newer one waits on the queue behind it.

A slow device so skips what it has no time for, and the marks are always of the newest prices. The queue
itself is asked, and from its newest end, where a newer tick is found at once.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis import Redis

from tradepool import wire
from tradepool.broker import lists_of
from tradepool.clock import now_us
from tradepool.errors import Corrupt, Misconfigured, Rejected, Unavailable
from tradepool.marking.prices import checked_prices
from tradepool.model.times import parse_time
from tradepool.settings import Settings
from tradepool.store.address import broker_name
from tradepool.store.connection import connect_broker
from tradepool.store.translation import translated

__all__ = ["QueuedTick", "QueuedTicks", "time_of_tick"]

_PAGES = (1, 9, 90, 100)
"""Messages looked at, from the newest on: if no tick is among 200, none is looked for further down."""


def time_of_tick(at: object, sent_at: object) -> float:
    """When a tick is of, in µs since 1970: its `at`, else when it was sent; without either, when it is run.

    A time to come counts as now, so that no clock that runs ahead makes all others' ticks stale.

    Raises: InvalidTrade when `at` is no time.
    """
    if at is not None:
        return min(parse_time("at", at), now_us())
    return sent_at if isinstance(sent_at, int) else math.inf


class QueuedTick(NamedTuple):
    """A tick that waits on a queue."""

    task_id: str
    time_us: float
    arguments: dict[str, Any]
    """`prices`, `at` and `stale`, as the task takes them."""


class QueuedTicks:
    """The calls of one task that wait on the queues of a broker. For one thread."""

    def __init__(self, settings: Settings, task: str) -> None:
        self._client: Redis = connect_broker(settings)
        self._name = broker_name(settings)
        self._task = task
        self._behind: set[str] = set()
        self._overtaken: set[str] = set()

    def is_stale(self, task_id: str, queue: str, time_us: float) -> bool:
        """Whether the tick `task_id`, of `time_us` and from `queue`, is stale: a newer one waits there.

        Its prices are only looked at when it is run: dropping a tick must cost less than marking it. While
        the broker does not answer no tick is stale: it is better to mark once too often.
        """
        self._behind = set()
        if task_id in self._overtaken:
            return True
        older = set()
        try:
            for tick in self._newest_first(queue):
                if tick.time_us >= time_us:
                    return True
                older.add(tick.task_id)
        except (Unavailable, Misconfigured, Corrupt):
            return False
        self._behind = older
        return False

    def overtake(self) -> None:
        """The tick that was asked about last has been marked: older ones that wait behind it are stale."""
        if self._behind:
            self._overtaken = self._behind

    def newest(self, queue: str) -> QueuedTick | None:
        """The newest tick on `queue` with prices that can be marked at, and it stays there.

        None when there is none, and while the broker does not answer.
        """
        try:
            found = sorted(self._newest_first(queue), key=lambda tick: tick.time_us, reverse=True)
        except (Unavailable, Misconfigured, Corrupt):
            return None
        return next((tick for tick in found if _are_prices(tick.arguments["prices"])), None)

    def depth(self, queue: str) -> int:
        """How many messages wait on `queue`. Raises: StoreUnavailable, Misconfigured."""
        with translated(self._name):
            return sum(int(self._client.llen(key)) for key in lists_of(queue))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _newest_first(self, queue: str) -> Iterator[QueuedTick]:
        """The ticks on `queue`, priority by priority: kombu adds messages at the head of a list."""
        for key in lists_of(queue):
            start = 0
            for size in _PAGES:
                with translated(self._name):
                    page: Any = self._client.lrange(key, start, start + size - 1)
                found = (_read(raw, self._task) for raw in page)
                yield from (tick for tick in found if tick is not None)
                start += size
                if len(page) < size:
                    break


def _read(raw: bytes, task: str) -> QueuedTick | None:
    """The tick in a stored message; None for any other, and for one that is not to be run now."""
    try:
        message = wire.decode(raw)
        headers = message["headers"]
        if headers["task"] != task or not _is_due(headers):
            return None
        args, kwargs = wire.decode(base64.b64decode(message["body"]))[:2]
        arguments = _arguments(*args, **kwargs)
        time_us = time_of_tick(arguments["at"], headers.get("sent_at"))
        return QueuedTick(str(headers["id"]), time_us, arguments)
    except (ValueError, TypeError, LookupError, AttributeError, Rejected):
        return None


def _is_due(headers: Mapping[str, Any]) -> bool:
    """Whether it is run as soon as it is taken: neither later nor never."""
    if headers.get("eta") is not None:
        return False
    if headers.get("expires") is None:
        return True
    until = datetime.fromisoformat(headers["expires"])
    return until > datetime.now(until.tzinfo or UTC).replace(tzinfo=until.tzinfo)


def _arguments(prices: Any = None, at: Any = None, stale: Any = None) -> dict[str, Any]:
    """As the task names them. Raises: TypeError when they are no call of it."""
    return {"prices": prices, "at": at, "stale": stale}


def _are_prices(prices: Any) -> bool:
    try:
        if prices is not None:
            checked_prices(prices)
    except Rejected:
        return False
    return True
