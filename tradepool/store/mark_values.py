"""What marks are made from and what they come to, in the store: prices, users' marks, totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from itertools import chain
from typing import Any, overload

from tradepool.batching import batched
from tradepool.model.ids import slot_of_user
from tradepool.store.asking import Command, ask_all
from tradepool.store.connection import Client
from tradepool.store.keys import MARK_BUCKETS, Keys
from tradepool.store.translation import text_of, translated

__all__ = ["MarkValues"]

_SET_PRICES = (resources.files("tradepool.store") / "lua" / "set_prices.lua").read_text("utf-8")
_PRICES_PAGE = 1000
"""Symbols to a script: it runs for a millisecond or two, while the server does nothing else."""
_TIME_DIGITS = 18
"""Of a time in µs; the largest there is, of the year 9999, has as many."""


class _Replacements(Sequence[Command]):
    """One command for each shard, made when it is looked up."""

    def __init__(self, keys: Sequence[Sequence[str]], marks: Mapping[int, Sequence[bytes]]) -> None:
        self._keys = keys
        self._marks = marks
        self._shards = list(marks)

    @overload
    def __getitem__(self, place: int) -> Command: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Command]: ...
    def __getitem__(self, place: int | slice) -> Command | Sequence[Command]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        shard = self._shards[place]
        return ("MSET", *chain.from_iterable(zip(self._keys[shard], self._marks[shard], strict=True)))

    def __len__(self) -> int:
        return len(self._shards)


class MarkValues:
    """The part of the store that marks live in. All methods raise StoreUnavailable."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def set_prices(self, prices: Mapping[str, str], at_us: int) -> int:
        """Store prices of time `at_us` by symbol, as plain decimal text; how many were stored.

        The others are of symbols that have a later price.
        """
        at = f"{at_us:0{_TIME_DIGITS}d}"
        taken = 0
        for page in batched(prices.items(), _PRICES_PAGE):
            with translated():
                answer: Any = self._client.eval(
                    _SET_PRICES, 1, self.keys.prices, at, *chain.from_iterable(page)
                )
            taken += int(answer)
        return taken

    def prices(self) -> dict[bytes, bytes]:
        """Every symbol that has a price → its time in µs, a blank, its price as decimal text."""
        with translated():
            stored: Any = self._client.hgetall(self.keys.prices)
        return stored  # type: ignore[no-any-return]

    def write_marks(self, marks: Mapping[int, Sequence[bytes]]) -> None:
        """Replace the marks of all users of some shards: shard → the value of each of its buckets.

        Those of one shard change in one moment. `marks` may make its values when they are looked up.
        """
        with translated():
            ask_all(self._client, _Replacements(self._mark_keys, marks))

    def read_marks(self, user_id: str) -> bytes | None:
        """The value of the user's bucket; None before the first mark."""
        slot = slot_of_user(user_id)
        key = self.keys.marks(self.keys.shard(slot), self.keys.mark_bucket(slot))
        with translated():
            value: Any = self._client.get(key)
        return value  # type: ignore[no-any-return]

    def read_marks_head(self, shard: int, size: int) -> bytes:
        """The first `size` bytes of the value that a shard's first bucket has; less before the first mark."""
        with translated():
            head: Any = self._client.getrange(self._mark_keys[shard][0], 0, size - 1)
        return head  # type: ignore[no-any-return]

    def write_mark_totals(
        self, part: str, totals: bytes, entry: Mapping[str, str | bytes], *, entries_max: int
    ) -> None:
        """Replace what the last mark of one part of the pool came to, and tell it as an entry of the stream.

        The stream keeps some `entries_max` entries.
        """
        stream = ("XADD", self.keys.mark_stream, "MAXLEN", "~", entries_max, "*")
        with translated():
            ask_all(
                self._client,
                [
                    ("HSET", self.keys.mark_totals, part, totals),
                    (*stream, *chain.from_iterable(entry.items())),
                ],
            )

    def read_mark_totals(self) -> dict[str, bytes]:
        """Part of the pool → what its last mark came to."""
        with translated():
            stored: Any = self._client.hgetall(self.keys.mark_totals)
        return {text_of(part): totals for part, totals in stored.items()}

    @cached_property
    def _mark_keys(self) -> list[list[str]]:
        """Of each shard, the keys of its buckets."""
        return [
            [self.keys.marks(shard, bucket) for bucket in range(MARK_BUCKETS)] for shard in self.keys.shards
        ]
