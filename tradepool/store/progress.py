"""How far each shard is: what it holds, what waits in its outbox, what the journal has of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.positions import START_POSITION, parse_position
from tradepool.store.asking import ask_all
from tradepool.store.connection import Client, routed
from tradepool.store.keys import Keys
from tradepool.store.translation import text_of, translated
from tradepool.store.watermark import JournaledShard, read_watermark

__all__ = [
    "JOURNAL_FIELD",
    "POSITION_FIELD",
    "OutboxHead",
    "Progress",
    "ShardDigest",
    "ask_outbox_heads",
    "bucket_text",
]

JOURNAL_FIELD = "journal"
"""Field of `Keys.meta`: the id of the journal that the store belongs to."""

POSITION_FIELD = "position"
"""Field of a shard's `Keys.digest`: the outbox position of its last commit."""
_DIGEST_CHARS = 16
_OUTBOX_HEAD = (resources.files("tradepool.store") / "lua" / "outbox_head.lua").read_text(encoding="utf-8")


class ShardDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard holds, in short."""

    position: str
    """Outbox position of the last commit in it."""
    buckets: dict[int, tuple[str, int]]
    """Bucket → XOR of the digests of its records (16 hex) and their count; empty buckets left out."""

    @property
    def digest(self) -> str:
        """XOR over the whole shard, 16 hex."""
        total = 0
        for digest, _ in self.buckets.values():
            total ^= int(digest, 16)
        return f"{total:016x}"

    @property
    def count(self) -> int:
        """Records in the shard."""
        return sum(count for _, count in self.buckets.values())


class OutboxHead(NamedTuple):
    """The commits of a shard that the journal has not taken out of its outbox yet."""

    length: int
    oldest_at: int | None
    """When the first of them was made, µs; None when there is none."""

    @classmethod
    def told(cls, answer: Sequence[Any]) -> OutboxHead:
        """From the answer of lua/outbox_head.lua."""
        length, position = answer
        at_ms = parse_position(text_of(position))[0] if position else None
        return cls(int(length), None if at_ms is None else at_ms * 1000)


def ask_outbox_heads(pipeline: Any, client: Client, keys: Keys) -> None:
    """Ask for the head of every shard's outbox, from shard 0 on; `OutboxHead.told` reads each answer."""
    for shard in keys.shards:
        outbox = keys.outbox(shard)
        pipeline.execute_command("EVAL_RO", _OUTBOX_HEAD, 1, outbox, **routed(client, outbox))


class Progress:
    """The part of the store that knows positions and digests. All methods raise StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def digest(self, shard: int) -> ShardDigest:
        """The shard's digests and the position of its last commit, of one moment."""
        return self.digests([shard])[0]

    def digests(self, shards: Iterable[int]) -> list[ShardDigest]:
        """`digest` of each of `shards`, in one round trip."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard in shards:
                pipeline.hgetall(self.keys.digest(shard))
            return [_shard_digest(fields) for fields in pipeline.execute()]

    def journal_id(self) -> str | None:
        """The id of the journal that the store belongs to; None before its first recovery."""
        with translated():
            found = self._client.hget(self.keys.meta, JOURNAL_FIELD)
        return None if found is None else text_of(found)

    def journaled(self, shards: Sequence[int]) -> list[JournaledShard]:
        """How far the journal is with each of `shards`, and what it holds of it; of one moment."""
        return read_watermark(self._client, self.keys, shards)

    def journaled_shards(self) -> list[JournaledShard]:
        """`journaled` of each shard, from shard 0 on."""
        return self.journaled(self.keys.shards)

    def outbox_lengths(self) -> list[int]:
        """Commits of each shard that wait in its outbox for the journal."""
        with translated():
            pipeline = self._client.pipeline(transaction=False)
            for shard in self.keys.shards:
                pipeline.xlen(self.keys.outbox(shard))
            return [int(length) for length in pipeline.execute()]

    def outbox_heads(self) -> list[OutboxHead]:
        """What waits in each shard's outbox, from shard 0 on, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        ask_outbox_heads(pipeline, self._client, self.keys)
        with translated():
            return [OutboxHead.told(answer) for answer in pipeline.execute()]

    def last_position(self, shard: int) -> str:
        """The outbox position of the shard's last commit; `START_POSITION` before the first."""
        return self.positions([shard])[0]

    def last_positions(self) -> list[str]:
        """`last_position` of each shard, from shard 0 on."""
        return self.positions(self.keys.shards)

    def positions(self, shards: Sequence[int]) -> list[str]:
        """`last_position` of each of `shards`, in one round trip."""
        asked = [("HGET", self.keys.digest(shard), POSITION_FIELD) for shard in shards]
        with translated():
            found = ask_all(self._client, asked)
        return [START_POSITION if position is None else text_of(position) for position in found]

    def advance_outbox(self, shard: int, position: str) -> None:
        """Have the shard's next commit stand after `position`, as the journal will expect.

        Does nothing where the outbox is there already. Otherwise everything in it is older than the
        journal and goes.
        """
        if parse_position(position) <= parse_position(self.last_position(shard)):
            return
        with translated():
            # In one transaction: a server must never have the one without the other.
            pipeline = self._client.pipeline(transaction=True)
            pipeline.xadd(self.keys.outbox(shard), {"advance": ""}, id=position, maxlen=0, approximate=False)
            pipeline.hset(self.keys.digest(shard), POSITION_FIELD, position)
            problem = pipeline.execute(raise_on_error=False)[0]
            if isinstance(problem, Exception) and "equal or smaller" not in str(problem):
                raise problem


def _shard_digest(fields: Mapping[bytes, bytes]) -> ShardDigest:
    stored = {text_of(field): text_of(value) for field, value in fields.items()}
    position = stored.pop(POSITION_FIELD, START_POSITION)
    if position != "{}-{}".format(*parse_position(position)):
        raise Corrupt(f"{position!r} is no position")
    buckets = {_bucket(name): _bucket_digest(text) for name, text in stored.items()}
    return ShardDigest(position=position, buckets=buckets)


def bucket_text(digest: int, count: int) -> str:
    """A bucket's field of `Keys.digest`, as lua/commit.lua writes it too."""
    return f"{digest:0{_DIGEST_CHARS}x}:{count}"


def _bucket(name: str) -> int:
    bucket = int(name, 16)
    if name != f"{bucket:x}":
        raise Corrupt(f"{name!r} is no bucket")
    return bucket


def _bucket_digest(text: str) -> tuple[str, int]:
    digest, count = text[:_DIGEST_CHARS], int(text[_DIGEST_CHARS + 1 :])
    if text != bucket_text(int(digest, 16), count):
        raise Corrupt(f"{text!r} is no digest and count")
    return digest, count
