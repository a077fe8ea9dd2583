"""Doubts are looked at again: records and what stands beside them, as they were at one moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.store.redis_store import RedisStore

__all__ = ["ATTEMPTS_MAX", "JOURNAL_WAIT_S", "at_rest"]

Answer = TypeVar("Answer")

ATTEMPTS_MAX = 10
"""Looks at something that will not stand still."""
JOURNAL_WAIT_S = 30.0
"""How long the journal is waited for, until it has what the store has."""


def at_rest(
    store: RedisStore, shard: int, record_ids: Sequence[str], ask: Callable[[], Answer]
) -> tuple[list[codec.Record | None], Answer] | None:
    """The records of a shard (None: there is no such record), and what `ask` answers while they are so.

    What belongs to a record changes with it in one commit, so equal records before and after mean one moment.
    None where they change at every look, or cannot be read.
    """
    places = [(shard, record_id) for record_id in record_ids]
    before = store.read(places)
    for _ in range(ATTEMPTS_MAX):
        answer = ask()
        after = store.read(places)
        if after == before:
            return _records(after, answer)
        before = after
    return None


def _records(
    values: Sequence[bytes | None], answer: Answer
) -> tuple[list[codec.Record | None], Answer] | None:
    try:
        return [None if value is None else codec.unpack(value) for value in values], answer
    except Corrupt:
        return None
