"""Reading trades back from the archive, checked against their digests.

A row whose trade is live is left over from an archiving that did not finish; who merges live and
archived trades reads the live ones first and lets them win.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradepool.archive.columns import Stored
from tradepool.archive.database import connected, parts_table, translated
from tradepool.archive.folder import ArchiveFolder, day_of
from tradepool.archive.parts import Row
from tradepool.archive.seals import check_seal, is_sealed
from tradepool.errors import Corrupt
from tradepool.model import codec
from tradepool.model.archived import Archived
from tradepool.model.trade_filter import Cursor, TradeFilter

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Archive"]

_FETCH = 500
_DAYS_FIRST = 8


class Archive:
    """The archived trades under one folder, which may not be on this machine.

    One database serves all threads and is opened by the first question. Every method raises
    Misconfigured without DuckDB, ResourceUnavailable when the files cannot be read, Corrupt when they are
    damaged.
    """

    def __init__(self, path: Path) -> None:
        self.folder = ArchiveFolder(path)
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._database: DuckDBPyConnection | None = None

    @property
    def is_here(self) -> bool:
        """Whether the archive can be read on this machine."""
        return self.folder.exists

    def has_days_of(self, wanted: TradeFilter) -> bool:
        """Whether a day is there under which one of the wanted trades may stand."""
        return bool(self._days_of(wanted))

    def close(self) -> None:
        """Let go of the database; the next question opens another."""
        with self._lock:
            self._database = None
            self._resources.close()

    def find(self, left: Archived) -> Stored:
        """The trade that `left` stands for. Raises: also Corrupt when the archive lacks it."""
        query = "user_id = ? AND trade_id = ? AND version = ?"
        values: list[object] = [left.user_id, left.trade_id, left.version - 1]
        for found in self._select(self.folder.parts_of(left.day), query, values):
            if left.digest in ("", codec.digest_of(found.body)):
                return found
        raise Corrupt(
            f"trade {left.trade_id}: not in the archive of {left.day} in {self.folder.path}; restore that day"
        )

    def page(self, wanted: TradeFilter, limit: int, after: Cursor | None = None) -> list[Stored]:
        """The `limit` newest of the wanted trades (behind `after`), newest first.

        Days are read from the newest back, more of them each time, until no older one can have a newer trade.
        """
        days = self._days_of(wanted)[::-1]
        condition, values = _condition(wanted, after)
        order = f"{condition} ORDER BY created_at DESC, trade_id DESC LIMIT {int(limit)}"
        found: list[Stored] = []
        done, step = 0, _DAYS_FIRST
        while done < len(days) and not _is_full(found, limit, days[done]):
            parts = [part for day in days[done : done + step] for part in self.folder.parts_of(day)]
            found = sorted([*found, *self._select(parts, order, values)], key=_place, reverse=True)[:limit]
            done, step = done + step, step * 2
        return found

    def stream(self, wanted: TradeFilter) -> Iterator[Stored]:
        """Every wanted trade, in no order, in bounded memory."""
        parts = [part for day in self._days_of(wanted) for part in self.folder.parts_of(day)]
        return self._select(parts, *_condition(wanted))

    def check(self, part: Path) -> bool:
        """Whether every byte of a part could be held against its checksum: one of an older release has none.

        Raises: also Corrupt for a part that is not what its checksum vouches for.
        """
        with translated(str(part)):
            check_seal(part)
        return is_sealed(part)

    def rows(self, part: Path, *, user_id: str | None = None) -> Iterator[Row]:
        """Which trades (of a user) one part holds; the digests are those of the JSON as it is now."""
        condition, values = _condition(TradeFilter(user_id=user_id))
        columns = "trade_id, version, record, user_id"
        for trade_id, version, record, owner in self._fetch([part], columns, condition, values):
            yield Row(trade_id, version, codec.digest_of(record.encode()), owner)

    def versions(self, day: str) -> Iterator[tuple[str, int]]:
        """Which version of which trade stands under `day`."""
        return self._fetch(self.folder.parts_of(day), "trade_id, version", "true", [])

    def first_day_of(self, wanted: TradeFilter) -> str:
        """The earliest day that a wanted trade can stand under: on or after the one it was created on."""
        return "" if wanted.since is None else day_of(wanted.since)

    def _days_of(self, wanted: TradeFilter) -> list[str]:
        return self.folder.days(since=self.first_day_of(wanted))

    def _select(self, parts: list[Path], condition: str, values: list[object]) -> Iterator[Stored]:
        for record, digest in self._fetch(parts, "record, digest", condition, values):
            yield _checked(record, digest)

    def _fetch(
        self, parts: list[Path], columns: str, condition: str, values: list[object]
    ) -> Iterator[tuple[Any, ...]]:
        if not parts:
            return
        query = f"SELECT {columns} FROM {parts_table()} WHERE {condition}"
        with translated(str(self.folder.path)), self._cursor() as cursor:
            cursor.execute(query, [[str(part) for part in parts], *values])
            while rows := cursor.fetchmany(_FETCH):
                yield from rows

    def _cursor(self) -> DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                self._database = self._resources.enter_context(connected())
            return self._database.cursor()


def _condition(wanted: TradeFilter, after: Cursor | None = None) -> tuple[str, list[object]]:
    """The trades that are wanted as SQL with its parameters."""
    terms = [f"{name} = ?" for name in wanted.values]
    values: list[object] = [*wanted.values.values()]
    if wanted.since is not None:
        terms, values = [*terms, "created_at >= make_timestamp(?)"], [*values, wanted.since]
    if wanted.until is not None:
        terms, values = [*terms, "created_at < make_timestamp(?)"], [*values, wanted.until]
    if after is not None:
        at, trade_id = after
        terms += ["created_at <= make_timestamp(?)", "(created_at < make_timestamp(?) OR trade_id < ?)"]
        values += [at, at, trade_id]
    return " AND ".join(terms) or "true", values


def _checked(record: str, digest: str) -> Stored:
    body = record.encode()
    if codec.digest_of(body) != digest:
        raise Corrupt("an archived record does not match its digest; restore its day from a backup")
    return Stored(codec.decode_trade(body), body)


def _place(found: Stored) -> Cursor:
    return found.trade.created_at, found.trade.trade_id


def _is_full(found: list[Stored], limit: int, next_day: str) -> bool:
    return len(found) == limit and day_of(found[-1].trade.created_at) > next_day
