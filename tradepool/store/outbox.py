"""The outboxes as the journal's writer uses them: read, confirm on the server what is on disk, trim.

One writer counts. Whoever takes over writes its *epoch* beside the watermark; from then on nobody else
can move the watermark, and nobody else's reading is believed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, NamedTuple

from redis.cluster import RedisCluster

from tradepool.errors import Fenced
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.connection import Client, routed
from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["EPOCH_FIELD", "Outbox", "OutboxEntry"]

EPOCH_FIELD = "epoch"
"""Field of `Keys.journal`: `<number> <token>` of the writer whose watermark counts."""

_PUBLISH = (resources.files("tradepool.store") / "lua" / "publish.lua").read_text(encoding="utf-8")
_TOKEN_BYTES = 8
_PAUSE_MIN_S = 0.001
_PAUSE_MAX_S = 0.016
"""How long a reader of a cluster waits between looks: it cannot block on keys of several nodes."""


class OutboxEntry(NamedTuple):
    """One commit of a shard: its position, and name → value of each change, as `plan` spells them."""

    shard: int
    position: str
    items: dict[bytes, bytes]


class Outbox:
    """The outboxes of all shards, for the one journal writer that has taken them over.

    Every method raises StoreUnavailable when the server cannot be reached.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._epoch: str | None = None
        self._shards = {keys.outbox(shard).encode(): shard for shard in keys.shards}

    def take_over(self) -> None:
        """Become the writer whose watermark counts; any other one is Fenced from now on."""
        with translated():
            before: Any = self._client.hget(self._keys.journal, EPOCH_FIELD)
            number = int(before.split()[0]) + 1 if before else 1
            # The token tells apart two writers that count from the same number after a server has
            # come back with an older one.
            epoch = f"{number} {secrets.token_hex(_TOKEN_BYTES)}"
            self._client.hset(self._keys.journal, EPOCH_FIELD, epoch)
        self._epoch = epoch

    def is_taken(self) -> bool:
        """Whether another writer has its place on the server."""
        with translated():
            stored: Any = self._client.hget(self._keys.journal, EPOCH_FIELD)
        return stored is not None and stored.decode() != self._epoch

    def read(self, after: Mapping[int, str], count: int, block_ms: int | None) -> list[OutboxEntry]:
        """Up to `count` entries of each shard that stand after its position, in order within a shard.

        Waits up to `block_ms` for the first of them, with None not at all.

        Raises: Fenced when the server does not know this writer: it may be one that was set back, and
        what is in its outboxes then contradicts the journal.
        """
        if isinstance(self._client, RedisCluster):
            return self._poll(after, count, block_ms)
        streams: Any = {key: after.get(shard, START_POSITION) for key, shard in self._shards.items()}
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            pipeline.xread(streams, count=count, block=block_ms)
            # Behind the read, on the same connection: it tells whose outboxes these were.
            pipeline.hget(self._keys.journal, EPOCH_FIELD)
            answer, epoch = pipeline.execute()
        self._check_epoch(epoch)
        return list(self._entries(answer))

    def publish(self, watermark: Mapping[int, str]) -> None:
        """Set the watermark of shards (shard → what `parse_watermark` reads).

        Raises: Fenced when another writer has taken over, or the server has lost this one's place.
        """
        fields = [
            text for shard, value in watermark.items() for text in (self._keys.journal_field(shard), value)
        ]
        with translated():
            published = self._client.eval(
                _PUBLISH, 1, self._keys.journal, EPOCH_FIELD, self._epoch or "", *fields
            )
        if not published:
            raise _lost_place()

    def trim(self, positions: Mapping[int, str]) -> None:
        """Drop what stands up to each shard's position; exactly, because an entry may hold 200 records."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard, position in positions.items():
                milliseconds, number = parse_position(position)
                pipeline.xtrim(
                    self._keys.outbox(shard), minid=f"{milliseconds}-{number + 1}", approximate=False
                )
            pipeline.execute()

    def _poll(self, after: Mapping[int, str], count: int, block_ms: int | None) -> list[OutboxEntry]:
        """`read` from a cluster: one command a shard, looking again until something is there."""
        deadline = time.monotonic() + (block_ms or 0) / 1000
        pause_s = _PAUSE_MIN_S
        while True:
            found = self._look(after, count)
            left_s = deadline - time.monotonic()
            if found or left_s <= 0:
                return found
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _look(self, after: Mapping[int, str], count: int) -> list[OutboxEntry]:
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for key, shard in self._shards.items():
                command = ("XREAD", "COUNT", count, "STREAMS", key, after.get(shard, START_POSITION))
                pipeline.execute_command(*command, **routed(self._client, key))
            pipeline.hget(self._keys.journal, EPOCH_FIELD)
            *answers, epoch = pipeline.execute()
        self._check_epoch(epoch)
        return [entry for answer in answers for entry in self._entries(answer)]

    def _entries(self, answer: Any) -> Iterator[OutboxEntry]:
        for key, found in answer:
            shard = self._shards[key]
            for position, items in found:
                yield OutboxEntry(shard, position.decode(), items)

    def _check_epoch(self, stored: Any) -> None:
        if stored is None or stored.decode() != self._epoch:
            raise _lost_place()


def _lost_place() -> Fenced:
    return Fenced("another journal writer has taken over, or the store lost this one's place")
