"""Filling empty shards in bulk with plain commands: for recovery, while nobody else may write.

That costs the server a third of what the commit script does, but nothing is compared and a batch is not
written whole. So a shard is marked while it is being filled. Whoever finds the mark empties the shard
and fills it from the start: a sum that was cut short could not be told from a whole one. Two of them
never write at once: the first thing one does is to cut off those before it.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import redis
from hiredis import pack_command

from tradepool.errors import Corrupt, Fenced
from tradepool.settings import Settings
from tradepool.store.arguments import Argument
from tradepool.store.connection import Client, connected_once
from tradepool.store.draft import Draft
from tradepool.store.keys import Keys
from tradepool.store.plan import RecordChange, draft_of, routes_of
from tradepool.store.progress import bucket_text
from tradepool.store.redis_store import RedisStore
from tradepool.store.translation import text_of, translated

__all__ = ["Filling", "clear_marks", "prepare"]

_CLIENT_NAME = "tradepool-filling"
"""How the server lists the connections that fill, so that the next one can cut them off."""
_MARK_BYTES = 8
_PIPELINE_BYTES = 1 << 16
"""From which size on commands are sent. About what a socket takes at once, so that the server works on
them while the next are being made."""
_COUNTERS_MAX = 20_000
"""Users whose sums are kept here, about 2 kB each, before they are added to the server's."""
_SCAN_COUNT = 1000


def prepare(client: redis.Redis, keys: Keys, shards: Collection[int]) -> str:
    """Mark `shards`, cut off whoever is filling, and empty them of what a filling left there; the mark.

    The routes stay: they belong to trades of other shards, and filling those writes them again.

    Raises: StoreUnavailable.
    """
    mark = secrets.token_hex(_MARK_BYTES)
    with translated():
        pipeline = client.pipeline(transaction=False)
        for shard in sorted(shards):
            pipeline.set(keys.filling(shard), mark, get=True)
            pipeline.exists(keys.users(shard))
        is_used = any(pipeline.execute())
        # After the marks: who connects from now on finds that they are not his own.
        for connection in client.client_list():
            if connection["name"] == _CLIENT_NAME:
                client.client_kill_filter(_id=connection["id"])
        if is_used:
            _empty(client, keys, shards)
    return mark


def clear_marks(client: Client, keys: Keys) -> None:
    """Say that what is filled is whole: its digests and positions are there. Raises: StoreUnavailable."""
    with translated():
        pipeline = client.pipeline(transaction=False)
        for shard in keys.shards:
            pipeline.delete(keys.filling(shard))
        pipeline.execute()


def _empty(client: redis.Redis, keys: Keys, shards: Collection[int]) -> None:
    kept = {name for shard in shards for name in (keys.filling(shard), keys.routes(shard))}
    cursor = 0
    while True:
        cursor, found = client.scan(cursor, match=keys.any_of_a_shard, count=_SCAN_COUNT)
        mine = [key for key in map(text_of, found) if keys.shard_of_key(key) in shards and key not in kept]
        if mine:
            client.unlink(*mine)
        if cursor == 0:
            return


class Filling:
    """Writes records into `shards`, which `prepare` has emptied and given `mark`. A context manager.

    It has a connection of its own, which never sends anything twice. Not for use by several threads.
    Memory holds one pipeline, and the sums of `_COUNTERS_MAX` users.

    Raises: Fenced when somebody else has prepared the shards since, StoreUnavailable.
    """

    def __init__(self, client: redis.Redis, settings: Settings, shards: Collection[int], mark: str) -> None:
        keys = self._keys = Keys(settings.shard_count)
        self._recent_max = settings.recent_max
        self._store = RedisStore(client, keys, settings)
        self._connection = connected_once(client, _CLIENT_NAME)
        with translated():
            self._connection.send_command("MGET", *map(keys.filling, sorted(shards)))
            marks = self._connection.read_response()
        if {text_of(found or b"") for found in marks} != {mark}:
            self._connection.disconnect()
            raise Fenced(
                "somebody else has begun to recover the store; stop the one whose data folder is a copy"
            )
        self._packed: list[bytes] = []
        self._packed_bytes = 0
        self._absent: list[tuple[str, int | None]] = []
        self._unanswered: list[tuple[str, int | None]] = []
        self._counters: dict[str, dict[str, int]] = defaultdict(dict)
        self._digests: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def write(self, shard: int, changes: Sequence[RecordChange]) -> None:
        """Write `changes` of the shard; `before` of each is what was written of the record so far.

        Raises: Corrupt when something is there that a change adds; StoreUnavailable.
        """
        draft = draft_of(self._keys, shard, changes, recent_max=self._recent_max)
        for command in draft.commands():
            self._put(command.name, command.key, *command.arguments, absent=command.absent)
        for bucket, (xor, count) in draft.digests().items():
            digest = self._digests[shard][bucket]
            digest[0] ^= xor
            digest[1] += count
        self._count(draft.increments())
        self._route(changes)
        self._send_if_many()

    def count_archived(self, user_id: str, amounts: Mapping[str, int]) -> None:
        """Count a user's archived trades whose versions nobody has any more. Raises: StoreUnavailable."""
        draft = Draft(self._keys, self._keys.shard_of_user(user_id))
        draft.count(user_id, amounts)
        draft.count_archived(user_id, amounts)
        self._count(draft.increments())

    def read(self, records: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """The stored values of (shard, record id) pairs as written so far. Raises: as `write`."""
        self._send()
        self._await_answers()
        return self._store.read(records)

    def finish(self) -> None:
        """Write what was summed up: counters and the shards' digests. Raises: as `write`."""
        self._send_counters()
        for shard, buckets in self._digests.items():
            fields = [text for bucket, sums in buckets.items() for text in _digest_field(bucket, sums)]
            self._put("HSET", self._keys.digest(shard), *fields, absent=len(buckets))
        self._digests.clear()
        self._send()
        self._await_answers()

    def _count(self, increments: Mapping[str, Mapping[str, int]]) -> None:
        for key, amounts in increments.items():
            sums = self._counters[key]
            for field, amount in amounts.items():
                sums[field] = sums.get(field, 0) + amount
        if len(self._counters) > _COUNTERS_MAX:
            self._send_counters()

    def _send_counters(self) -> None:
        for key, sums in self._counters.items():
            for field, amount in sums.items():
                if amount:
                    self._put("HINCRBY", key, field, amount)
            self._send_if_many()
        self._counters.clear()

    def _route(self, changes: Iterable[RecordChange]) -> None:
        """Make trades findable whose ids do not carry their shard; the journal knows whose they are."""
        routes: dict[str, list[str | int]] = defaultdict(list)
        new = (change for change in changes if change.before is None)
        for trade_id, slot in routes_of(self._keys, new).items():
            routes[self._keys.routes(self._keys.route_shard(trade_id))] += [trade_id, slot]
        for key, pairs in routes.items():
            self._put("HSET", key, *pairs)

    def _put(self, name: str, key: str, *arguments: Argument, absent: int | None = None) -> None:
        # hiredis declares a tuple of one, and takes any.
        command: Any = (name, key, *arguments)
        packed = pack_command(command)
        self._packed.append(packed)
        self._packed_bytes += len(packed)
        self._absent.append((key, absent))

    def _send_if_many(self) -> None:
        if self._packed_bytes >= _PIPELINE_BYTES:
            self._send()

    def _send(self) -> None:
        """Check what the server answered so far, and give it more to do meanwhile."""
        self._await_answers()
        with translated():
            self._connection.send_packed_command([b"".join(self._packed)], check_health=False)
        self._unanswered, self._absent = self._absent, []
        self._packed.clear()
        self._packed_bytes = 0

    def _await_answers(self) -> None:
        unanswered, self._unanswered = self._unanswered, []
        with translated():
            answers = [self._connection.read_response() for _ in unanswered]
        for (key, expected), answer in zip(unanswered, answers, strict=True):
            if expected is not None and answer != expected:
                raise Corrupt(
                    f"{key}: {expected - answer} of what was to be added is there already; the journal has "
                    "a record, an idempotency key or a fill twice; prove it with 'tradepool verify-log'"
                )


def _digest_field(bucket: int, sums: Sequence[int]) -> Iterator[str]:
    yield f"{bucket:x}"
    yield bucket_text(*sums)
