"""The broker as whoever watches sees it: what waits on its queues and since when, and the clock's entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from kombu.transport.redis import Channel

from tradepool import wire
from tradepool.broker import lists_of
from tradepool.fleet.dead_letters import letter_in
from tradepool.settings import Settings
from tradepool.store.address import broker_name
from tradepool.store.connection import connect_broker
from tradepool.store.translation import text_of, translated
from tradepool.store.vitals import Memory

__all__ = ["BrokerReader", "BrokerState", "Entry", "Waiting"]

_SCHEDULE = "redbeat::schedule"
_ENTRY_PREFIX = "redbeat:"
_US_PER_S = 1_000_000


class Waiting(NamedTuple):
    """Messages that wait, and since when the one that is next has, µs; None: there is none."""

    depth: int
    oldest_at: int | None


class Entry(NamedTuple):
    """One entry of beat's schedule: when it was last sent (None: never yet) and when it is next due, µs."""

    name: str
    sent_at: int | None
    due_at: int


class BrokerState(msgspec.Struct, frozen=True, kw_only=True):
    """The broker at one moment."""

    queues: dict[str, Waiting]
    """Every queue that workers consume."""
    dead: Waiting
    unacked: Waiting
    """Messages that workers have and did not acknowledge yet, since they took them."""
    entries: tuple[Entry, ...]
    memory: Memory


class BrokerReader:
    """Reads the broker of `settings`. For one thread. Connects when it first reads.

    Raises: Misconfigured.
    """

    def __init__(self, settings: Settings) -> None:
        self._client = connect_broker(settings)
        self._name = broker_name(settings)
        queues = dict.fromkeys((*wire.QUEUES, *wire.device_queues(settings.pnl_devices)))
        self._lists = {queue: lists_of(queue) for queue in queues}
        self._entry_keys: Sequence[str] = ()
        self._first_seen: dict[str, tuple[object, int]] = {}

    def read(self, now: int) -> BrokerState:
        """Its state at `now` (µs); one round trip, and one more when beat has got new entries.

        A message is as old as its header `sent_at` says. One without it (of somebody who knows nothing but
        Celery) is as old as it has been seen here at the end of its queue: less than it is, but it grows
        when nobody takes it.

        Raises: StoreUnavailable, Misconfigured.
        """
        with translated(self._name):
            waiting, (dead, letter), unacked, schedule, memory, metas = self._ask()
        queues = iter(zip(waiting[::2], waiting[1::2], strict=True))
        due = {text_of(key): int(score * _US_PER_S) for key, score in schedule}
        return BrokerState(
            queues={
                queue: _together([self._waiting(name, *next(queues), now) for name in names])
                for queue, names in self._lists.items()
            },
            dead=Waiting(int(dead), letter and (letter_in(letter).parked_at or None)),
            unacked=Waiting(int(unacked[0]), next((int(at * _US_PER_S) for _, at in unacked[1]), None)),
            entries=tuple(
                Entry(key.removeprefix(_ENTRY_PREFIX), _sent_at(meta), due[key])
                for key, meta in metas.items()
                if key in due
            ),
            memory=Memory(int(memory["used_memory"]), int(memory["maxmemory"])),
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ask(self) -> tuple[Any, ...]:
        pipeline: Any = self._client.pipeline(transaction=False)
        lists = [name for names in self._lists.values() for name in names]
        for name in (*lists, wire.QUEUE_DEAD):
            # Redis gives away the last of a list, and what it has had for too long goes back there.
            pipeline.llen(name).lindex(name, -1)
        pipeline.zcard(Channel.unacked_index_key).zrange(Channel.unacked_index_key, 0, 0, withscores=True)
        pipeline.zrange(_SCHEDULE, 0, -1, withscores=True).info("memory")
        asked = self._entry_keys
        for key in asked:
            pipeline.hget(key, "meta")
        answers = pipeline.execute()
        waiting, rest = answers[: 2 * len(lists)], answers[2 * len(lists) :]
        dead, unacked, schedule, memory = rest[:2], rest[2:4], rest[4], rest[5]
        metas = dict(zip(asked, rest[6:], strict=True))
        self._entry_keys = [text_of(key) for key, _ in schedule]
        if self._entry_keys != list(asked):
            pipeline = self._client.pipeline(transaction=False)
            for key in self._entry_keys:
                pipeline.hget(key, "meta")
            metas = dict(zip(self._entry_keys, pipeline.execute(), strict=True))
        return waiting, dead, unacked, schedule, memory, metas

    def _waiting(self, name: str, depth: int, oldest: bytes | None, now: int) -> Waiting:
        if oldest is None:
            self._first_seen.pop(name, None)
            return Waiting(int(depth), None)
        message = _message(oldest)
        if message.headers.sent_at is not None:
            return Waiting(int(depth), message.headers.sent_at)
        tag, seen_at = self._first_seen.get(name, (None, now))
        if tag != message.properties.delivery_tag:
            seen_at = now
        self._first_seen[name] = message.properties.delivery_tag, seen_at
        return Waiting(int(depth), seen_at)


class _Headers(msgspec.Struct):
    sent_at: int | None = None


class _Properties(msgspec.Struct):
    delivery_tag: str = ""


class _Message(msgspec.Struct):
    headers: _Headers = msgspec.field(default_factory=_Headers)
    properties: _Properties = msgspec.field(default_factory=_Properties)


class _SentAt(msgspec.Struct):
    year: int
    month: int
    day: int
    hour: int = 0
    minute: int = 0
    second: int = 0
    microsecond: int = 0


class _Meta(msgspec.Struct):
    last_run_at: _SentAt | None = None


def _together(lists: Sequence[Waiting]) -> Waiting:
    return Waiting(sum(one.depth for one in lists), min(_known(lists), default=None))


def _known(lists: Sequence[Waiting]) -> Iterator[int]:
    return (one.oldest_at for one in lists if one.oldest_at is not None)


def _message(raw: bytes) -> _Message:
    try:
        return msgspec.json.decode(raw, type=_Message)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Workers park what is no message; until then it is as old as it has been seen here.
        return _Message()


def _sent_at(meta: bytes | None) -> int | None:
    """When RedBeat sent the entry; the fleet's clock is UTC."""
    if meta is None:
        return None
    found = msgspec.json.decode(meta, type=_Meta).last_run_at
    if found is None:
        return None
    fields: Mapping[str, int] = msgspec.structs.asdict(found)
    return int(datetime(**fields, tzinfo=UTC).timestamp() * _US_PER_S)
