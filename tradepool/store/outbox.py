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
from tradepool.store.asking import Command, ask_all
from tradepool.store.connection import Client, routed
from tradepool.store.fence import GENERATION_FIELD
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated

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
        self._dropped: dict[int, str] = {}
        """Up to where each shard's outbox may go: it was published."""
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

        Waits up to `block_ms` for the first of them, with None not at all. What was published before is
        dropped on the way.

        Raises: Fenced when the server does not know this writer: it may be one that was set back, and
        what is in its outboxes then contradicts the journal.
        """
        if isinstance(self._client, RedisCluster):
            return self._poll(after, count, block_ms)
        block = () if block_ms is None else ("BLOCK", block_ms)
        streams = [after.get(shard, START_POSITION) for shard in self._shards.values()]
        with translated():
            *_, answer, epoch = ask_all(
                self._client,
                [
                    *self._trims(),
                    ("XREAD", "COUNT", count, *block, "STREAMS", *self._shards, *streams),
                    # Behind the read, on the same connection: it tells whose outboxes these were.
                    ("HGET", self._keys.journal, EPOCH_FIELD),
                ],
            )
        self._dropped = {}
        self._check_epoch(epoch)
        return [
            OutboxEntry(shard, position.decode(), dict(zip(items[::2], items[1::2], strict=True)))
            for key, found in answer or ()
            for shard in (self._shards[key],)
            for position, items in found
        ]

    def publish(self, watermark: Mapping[int, str], positions: Mapping[int, str]) -> str:
        """Set the watermark of shards (shard → what `parse_watermark` reads); the server's generation.

        What stands up to `positions` (shard → outbox position) is dropped from the outboxes with the next
        `read`.

        Raises: Fenced when another writer has taken over, or the server has lost this one's place.
        """
        keys = self._keys
        fields = [text for shard, value in watermark.items() for text in (keys.journal_field(shard), value)]
        names = (keys.journal, keys.journal_bell, keys.meta)
        about = (EPOCH_FIELD, self._epoch or "", GENERATION_FIELD)
        with translated():
            (generation,) = ask_all(
                self._client, [("EVAL", _PUBLISH, len(names), *names, *about, *fields)], at=keys.journal
            )
        if generation is None:
            raise _lost_place()
        self._dropped |= positions
        return text_of(generation)

    def trim(self) -> None:
        """Drop what was published, without a `read`."""
        with translated():
            ask_all(self._client, list(self._trims()))
        self._dropped = {}

    def _trims(self) -> Iterator[Command]:
        """What drops the published entries: exactly, because an entry may hold 200 records."""
        for shard, position in self._dropped.items():
            milliseconds, number = parse_position(position)
            yield "XTRIM", self._keys.outbox(shard), "MINID", "=", f"{milliseconds}-{number + 1}"

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
            for trim in self._trims():
                pipeline.execute_command(*trim)
            for key, shard in self._shards.items():
                command = ("XREAD", "COUNT", count, "STREAMS", key, after.get(shard, START_POSITION))
                pipeline.execute_command(*command, **routed(self._client, key))
            pipeline.hget(self._keys.journal, EPOCH_FIELD)
            *answers, epoch = pipeline.execute()
        answers, self._dropped = answers[len(self._dropped) :], {}
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
