"""Mending keys of a shard by compare-and-set: what lua/repair.lua does, and raw reads to decide on.

The script belongs to a generation as the commit script does (`fence`): a server that waits for its recovery
is mended by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from tradepool.errors import Fenced, Misconfigured
from tradepool.store.arguments import Argument, Places, bytes_of, chunks
from tradepool.store.asking import Command, ask_all
from tradepool.store.connection import Client
from tradepool.store.fence import current_generation, repair_sha
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore
from tradepool.store.translation import text_of, translated

__all__ = ["Look", "Mender", "Mending", "Recount", "Write"]

_PAGE = 1000
_VALUES_FROM = 2
"""The first argument after the plan, counted from 1 as the script does."""
_encode = msgspec.msgpack.Encoder().encode


class Look(NamedTuple):
    """A command that reads, and what it must answer; None: nothing."""

    command: str
    key: str
    arguments: Sequence[Argument]
    expected: bytes | None


class Write(NamedTuple):
    """A command that writes."""

    command: str
    key: str
    arguments: Sequence[Argument]


class Recount(NamedTuple):
    """The sums of a bucket of a shard, as they stand and as its records come to; '' for none."""

    bucket: int
    kept: str
    counted: str


class Mending(NamedTuple):
    """What is to be written of one shard, and what must still be so when it is."""

    looks: Sequence[Look]
    writes: Sequence[Write]


class Mender:
    """Mends one store. Every method raises StoreUnavailable; Fenced while the server waits for recovery, and
    where it is no more of the `generation` that was looked at (None: of whichever it is).
    """

    def __init__(self, client: Client, store: RedisStore, generation: str | None = None) -> None:
        self._client = client
        self._store = store
        self._generation = generation

    def of(self, generation: str) -> Mender:
        """One that mends the server only in that generation: what was seen before a recovery may be gone."""
        return Mender(self._client, self._store, generation)

    @property
    def keys(self) -> Keys:
        """The keys of the store."""
        return self._store.keys

    def mend(self, mending: Mending) -> bool:
        """Write everything, if all is as it was seen; whether it was. Then nothing was written."""
        answer = self._run(mending, (), dry=False)
        return not isinstance(answer, int)

    def recounted(self, shard: int, buckets: Iterable[int]) -> list[Recount] | None:
        """What the sums of buckets are and should be, each of one moment; None: a record has no digest."""
        return self._recount(shard, buckets, dry=True)

    def recount(self, shard: int, buckets: Iterable[int]) -> list[Recount] | None:
        """Set the sums of buckets right, each in one step; as `recounted`."""
        return self._recount(shard, buckets, dry=False)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """What the server answers, in bytes. Raises: Corrupt for a key of a wrong type."""
        with translated():
            return ask_all(self._client, commands)

    def members(self, key: str) -> dict[bytes, float]:
        """Member → score of a sorted set, read in pages; what moves meanwhile may be left out."""
        found: dict[bytes, float] = {}
        for first in range(0, 1 << 62, _PAGE):
            page = _pairs(self.ask([("ZRANGE", key, first, first + _PAGE - 1, "WITHSCORES")])[0])
            found.update({member: float(score) for member, score in page})
            if len(page) < _PAGE:
                break
        return found

    def score(self, key: str, member: bytes) -> float | None:
        """Where the member stands in the sorted set; None: it is not in there."""
        (score,) = self.ask([("ZSCORE", key, member)])
        return None if score is None else float(score)

    def fields(self, key: str) -> dict[bytes, bytes]:
        """All fields of a hash."""
        return dict(_pairs(self.ask([("HGETALL", key)])[0]))

    def type_of(self, key: str) -> str:
        """The key's type, as the server names it; `none` where there is no such key."""
        return text_of(self.ask([("TYPE", key)])[0])

    def record_look(self, shard: int, record_id: str, value: bytes | None) -> Look:
        """That a record is still `value`; None: that there is none."""
        return Look("HGET", self.keys.records(shard, self.keys.bucket_of(record_id)), [record_id], value)

    def _recount(self, shard: int, buckets: Iterable[int], *, dry: bool) -> list[Recount] | None:
        found: list[Recount] = []
        for bucket in buckets:
            place = (self.keys.digest(shard), self.keys.records(shard, bucket), f"{bucket:x}")
            answer = self._run(Mending((), ()), [place], dry=dry)
            if isinstance(answer, int):
                return None
            found.append(Recount(bucket, *map(text_of, answer)))
        return found

    def _run(self, mending: Mending, recounts: Iterable[tuple[str, str, str]], *, dry: bool) -> Any:
        keys, values = Places(1), Places(_VALUES_FROM)
        steps = (
            [
                (look.command, keys[look.key], _placed(values, look.arguments), _expected(values, look))
                for look in mending.looks
            ],
            [
                (write.command, keys[write.key], _placed(values, chunk))
                for write in mending.writes
                for chunk in chunks(write.arguments)
            ],
            [(keys[sums], keys[records], bucket) for sums, records, bucket in recounts],
            dry,
        )
        generation = self._store.generation()
        if self._generation not in (None, generation):
            raise Fenced("the server was recovered while it was being repaired; try the same again")
        command = ("EVALSHA", repair_sha(generation), len(keys), *keys, _encode(steps), *values)
        try:
            (answer,) = self.ask([command])
        except Fenced:
            # Raises where the server is what lacks its scripts.
            current_generation(self._client)
            raise Misconfigured(
                "the server was opened by an older release and lacks the script that repairs; "
                "restart the files worker, or (without a fleet) run `tradepool recover`"
            ) from None
        return answer


def _placed(values: Places, arguments: Iterable[Argument]) -> list[int]:
    return [values[bytes_of(argument)] for argument in arguments]


def _expected(values: Places, look: Look) -> int:
    return 0 if look.expected is None else values[look.expected]


def _pairs(answer: Any) -> list[tuple[Any, Any]]:
    """Pairs in whichever form the client answers."""
    if isinstance(answer, dict):
        return list(answer.items())
    if answer and isinstance(answer[0], list | tuple):
        return [(first, second) for first, second in answer]
    flat: Iterator[Any] = iter(answer)
    return list(zip(flat, flat, strict=True))
