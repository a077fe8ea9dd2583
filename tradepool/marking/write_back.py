"""The latest marks in the store, readable by user and in total."""

from __future__ import annotations

from typing import Any

import msgspec

from tradepool.marking.bucket_layout import BucketLayout
from tradepool.marking.mark_totals import MarkTotals, newest_totals, part_name, totals_of
from tradepool.marking.user_buckets import HEAD_BYTES, UserBuckets, time_of, user_tallies
from tradepool.model.money import plain
from tradepool.placing import known_id
from tradepool.pnl.decimal_rows import UserTally
from tradepool.pnl.marks import Marks
from tradepool.pnl.position import from_units
from tradepool.pnl.user_marks import UserColumns
from tradepool.store.redis_store import RedisStore

__all__ = ["WriteBack"]


class WriteBack:
    """Writes the marks of one part of the pool, shards s with s % `parts` = `part`, and reads those of all.

    Every write replaces the marks of all users of these shards, also of those who hold nothing and those
    whom another process has marked: each has the time of the latest one. One thread at a time writes, any
    number read.
    """

    def __init__(self, store: RedisStore, part: int = 0, parts: int = 1, *, stream_max: int = 3600) -> None:
        self._store = store
        self._part = part_name(part, parts)
        self._shards = range(part, store.keys.shard_count, parts)
        self._entries_max = stream_max * parts
        self._layout = BucketLayout(store.keys)

    def write(self, marks: Marks) -> MarkTotals:
        """Replace the marks of every user, then the totals, and add an entry to the stream; those totals.

        A shard's users change in one moment. Raises: StoreUnavailable, after which some shards may have the
        new marks: the next write replaces all.
        """
        columns = marks.users.columns
        self._layout.follow(columns.groups, len(columns.count))
        self._store.write_marks(UserBuckets(self._layout, columns, marks.at, self._shards))
        totals = totals_of(marks, self._users(columns))
        self._store.write_mark_totals(
            self._part, msgspec.json.encode(totals), self._entry(totals), entries_max=self._entries_max
        )
        return totals

    def time_of_last(self) -> int | None:
        """The time (µs) of the marks that stand in this part's shards; None before the first.

        Raises: StoreUnavailable.
        """
        if not self._shards:
            return None
        head = self._store.read_marks_head(self._shards[0], HEAD_BYTES)
        return time_of(head) if len(head) == HEAD_BYTES else None

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks: `at` (µs) and `by_currency`; empty before the first.

        Raises: InvalidTrade when it is no user's id; StoreUnavailable.
        """
        known_id("user_id", user_id)
        value = self._store.read_marks(user_id)
        if value is None:
            return {}
        at, tallies = user_tallies(value, user_id)
        return {"at": at, "by_currency": {currency: _figures(tally) for currency, tally in tallies.items()}}

    def get_totals(self) -> dict[str, Any] | None:
        """What the last mark came to, as `MarkTotals` without its symbols; None before the first.

        Raises: StoreUnavailable.
        """
        totals = newest_totals(self._store.read_mark_totals())
        if totals is None:
            return None
        told: dict[str, Any] = msgspec.to_builtins(totals)
        del told["symbols"]
        return told

    def get_symbol_marks(self) -> dict[str, Any]:
        """The last mark by symbol: `at` (µs) and `by_symbol`; empty before the first.

        Raises: StoreUnavailable.
        """
        totals = newest_totals(self._store.read_mark_totals())
        return {} if totals is None else {"at": totals.at, "by_symbol": msgspec.to_builtins(totals.symbols)}

    def _users(self, columns: UserColumns) -> int:
        held = (columns.count > 0) | (columns.unmarked > 0)
        return self._layout.users_among(held, {user_id for user_id, _ in columns.singles})

    def _entry(self, totals: MarkTotals) -> dict[str, str | bytes]:
        return {
            "part": self._part,
            "at": str(totals.at),
            "backend": totals.backend,
            "totals": msgspec.json.encode(totals.totals),
            "users": str(totals.users),
            "rows": str(totals.rows),
            "missing": str(len(totals.missing)),
            "stale": str(len(totals.stale)),
        }


def _figures(tally: UserTally) -> dict[str, Any]:
    return {
        "unrealised": plain(from_units(tally.unrealised)),
        "profit": plain(from_units(tally.profit)),
        "exposure": plain(from_units(tally.exposure)),
        "winners": tally.winners,
        "count": tally.count,
        "unmarked": tally.unmarked,
    }
