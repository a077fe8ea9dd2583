"""Whether the book is what the store says is open, compared while both change.

Digests first: those of a shard's rows against those of a book made of the shard's open trades as they are
read. Where they differ rows are compared, and where rows differ both sides are looked at once more: a trade
that is the same before and after the book was looked at, the book having taken all that had been committed
by then, must be in the book as it is. What changes during every look stays undecided. So writers cause no
findings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from tradepool.batching import batched
from tradepool.errors import InvalidTrade, StoreUnavailable
from tradepool.marking.open_book import OpenBook
from tradepool.marking.positions import position_of, put_open
from tradepool.model import codec
from tradepool.model.ids import slot_of_user
from tradepool.model.money import canonical, plain
from tradepool.model.trade import Trade
from tradepool.pnl.book import Book
from tradepool.pnl.book.rows import row_of, rows_of
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.pnl.position import figures_of, from_units

__all__ = ["BookCheck", "BookDifference", "check_book"]

_PARTS = 64
"""Parts of a shard that are digested each for itself, so that one change has few rows compared."""
_SHARDS_AT_ONCE = 8
"""Shards whose rows are digested in one pass over the book."""
_CHECKS_MAX = 3
_LOOKS_MAX = 5
_BATCH = 1000
"""Trades that are looked at once more together."""
_CATCH_UP_S = 30.0
"""How long the book may take to have what the store had, before that is left undecided."""
_PAUSE_S = 0.005
_NAMED_MAX = 1000
"""Differences, and undecided trades, that a report names."""


class BookDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A trade that the book has otherwise than the store."""

    trade_id: str
    shard: int
    what: str
    """`missing_in_book`, `extra_in_book`, or the names of the figures that differ."""
    book: str | None
    """Those figures as the book has them; None without a row."""
    store: str | None


class BookCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of the book with the store came to; `at` and `duration_s` are in µs and s."""

    at: int
    part: int
    """Of `parts` that share the pool's shards: which of them this book has."""
    parts: int
    shards: int
    """Shards compared."""
    rows: int
    """Rows that the store's open trades came to."""
    different: int
    """How many trades the book has otherwise; `differences` names the first thousand."""
    differences: tuple[BookDifference, ...]
    undecided: tuple[str, ...]
    """Trades that changed during every look, shards whose changes the journal did not have in time."""
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether no trade differs."""
        return not self.different

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return msgspec.json.decode(msgspec.json.encode(self), type=dict[str, Any])


def check_book(open_book: OpenBook, lock: AbstractContextManager[object], at: int) -> BookCheck:
    """Compare every row; the report, which is stored as well. `at` is the time, µs.

    `lock` guards the book and is held for short stretches only.

    Raises: StoreUnavailable also when the server is recovered during each of three checks; Fenced;
    Corrupt when a stored record cannot be read; and as `OpenBook.catch_up`.
    """
    store = open_book.store
    for _ in range(_CHECKS_MAX):
        started, generation = time.monotonic(), store.generation()
        check = _Check(open_book, lock)
        check.run()
        if store.generation() == generation:
            report = check.report(at, time.monotonic() - started)
            store.write_book_check(report.part, report.parts, msgspec.json.encode(report))
            return report
    raise StoreUnavailable(f"the server was recovered during each of {_CHECKS_MAX} checks of the book")


class _Check:
    """One comparison of all shards."""

    def __init__(self, open_book: OpenBook, lock: AbstractContextManager[object]) -> None:
        self._open_book = open_book
        self._store = open_book.store
        self._lock = lock
        self._rows = 0
        self._different = 0
        self._differences: list[BookDifference] = []
        self._undecided: dict[str, None] = {}
        self._is_late = False
        self._keys: list[tuple[str, str]] = []
        self._parts: list[int] = []

    def run(self) -> None:
        for shards in batched(self._open_book.shards, _SHARDS_AT_ONCE):
            with self._lock:
                self._open_book.catch_up()
                found = self._digests(self._open_book.book, self._parts_of_book(), shards)
            for shard in shards:
                suspects = self._suspects(shard, found)
                for batch in batched(sorted(suspects), _BATCH):
                    self._look_again(shard, batch)

    def report(self, at: int, duration_s: float) -> BookCheck:
        return BookCheck(
            at=at,
            part=self._open_book.part,
            parts=self._open_book.parts,
            shards=len(self._open_book.shards),
            rows=self._rows,
            different=self._different,
            differences=tuple(self._differences),
            undecided=tuple(islice(self._undecided, _NAMED_MAX)),
            duration_s=duration_s,
        )

    def _suspects(self, shard: int, found: Sequence[tuple[int, int]]) -> set[str]:
        """The trades of a shard whose row was not what the store had, at moments that may not be the same."""
        expected = Book()
        put_open(expected, self._store, shard)
        self._rows += len(expected)
        expected_parts = self._parts_of(expected.groups.keys)
        wanted = self._digests(expected, expected_parts, [shard])
        parts = range(shard * _PARTS, (shard + 1) * _PARTS)
        differing = {part for part in parts if found[part] != wanted[part]}
        if not differing:
            return set()
        with self._lock:
            held = _rows_in(self._open_book.book, self._parts_of_book(), differing)
        stored = _rows_in(expected, expected_parts, differing)
        return {
            trade_id for trade_id in held.keys() | stored.keys() if held.get(trade_id) != stored.get(trade_id)
        }

    def _digests(self, book: Book, parts: Sequence[int], shards: Sequence[int]) -> Sequence[tuple[int, int]]:
        """What the rows of some shards come to, by part; `parts` has that of each group."""
        part_of = np.array(parts, np.intp)
        part_of[~np.isin(part_of // _PARTS, shards)] = -1
        return book.digests(part_of, self._store.keys.shard_count * _PARTS)

    def _parts_of_book(self) -> list[int]:
        """The part of each group of the book. They are many, and stay what they are until a compaction."""
        keys = self._open_book.book.groups.keys
        if keys is not self._keys:
            self._keys, self._parts = keys, []
        self._parts += self._parts_of(islice(keys, len(self._parts), None))
        return self._parts

    def _parts_of(self, groups: Iterable[tuple[str, str]]) -> list[int]:
        """The part of each group, numbered through all shards."""
        shard_count = self._store.keys.shard_count
        slots = (slot_of_user(user_id) for user_id, _ in groups)
        return [slot % shard_count * _PARTS + slot // shard_count % _PARTS for slot in slots]

    def _look_again(self, shard: int, trade_ids: Iterable[str]) -> None:
        left = list(trade_ids)
        for _ in range(_LOOKS_MAX):
            before = self._read(shard, left)
            if not self._book_has({shard: self._store.last_position(shard)}):
                self._undecided[f"shard {shard:02x}"] = None
                return
            with self._lock:
                book = self._open_book.book
                rows = {trade_id: row_of(book, trade_id) for trade_id in left}
            after = self._read(shard, left)
            for trade_id in left:
                if before[trade_id] == after[trade_id]:
                    self._compare(shard, trade_id, rows[trade_id], after[trade_id])
            left = [trade_id for trade_id in left if before[trade_id] != after[trade_id]]
            if not left:
                return
        self._undecided |= dict.fromkeys(left)

    def _read(self, shard: int, trade_ids: Sequence[str]) -> dict[str, bytes | None]:
        values = self._store.read([(shard, trade_id) for trade_id in trade_ids])
        return dict(zip(trade_ids, values, strict=True))

    def _book_has(self, positions: Mapping[int, str]) -> bool:
        """Have the book take all up to `positions`, which the journal may still have to write."""
        deadline = time.monotonic() + (0 if self._is_late else _CATCH_UP_S)
        while True:
            with self._lock:
                self._open_book.catch_up()
                if self._open_book.has_reached(positions):
                    return True
            if time.monotonic() > deadline:
                # A journal that stands still does so for all shards: the next one is not waited for.
                self._is_late = True
                return False
            time.sleep(_PAUSE_S)

    def _compare(self, shard: int, trade_id: str, row: DecimalRow | None, value: bytes | None) -> None:
        wanted = _row_of(value)
        if row == wanted:
            return
        self._different += 1
        if len(self._differences) < _NAMED_MAX:
            what, book, store = _told(row, wanted)
            self._differences.append(
                BookDifference(trade_id=trade_id, shard=shard, what=what, book=book, store=store)
            )


def _rows_in(book: Book, part_of_group: Sequence[int], parts: set[int]) -> dict[str, DecimalRow]:
    groups = {group for group, part in enumerate(part_of_group) if part in parts}
    return {row.trade_id: row for row in rows_of(book, groups)}


def _row_of(value: bytes | None) -> DecimalRow | None:
    """The row that a stored record must have in the book; None: it must have none."""
    record = None if value is None else codec.unpack(value)
    position = position_of(record) if isinstance(record, Trade) else None
    if position is None:
        return None
    try:
        figures = figures_of(position)
    except InvalidTrade:
        return None
    return DecimalRow(position.trade_id, position.user_id, position.currency, position.symbol, figures)


def _told(row: DecimalRow | None, wanted: DecimalRow | None) -> tuple[str, str | None, str | None]:
    """What differs, and the two sides of it."""
    held, stored = _figures(row), _figures(wanted)
    if row is None:
        return "missing_in_book", None, _text(stored, stored)
    if wanted is None:
        return "extra_in_book", _text(held, held), None
    names = [name for name in held if held[name] != stored[name]]
    return ", ".join(names), _text(held, names), _text(stored, names)


def _figures(row: DecimalRow | None) -> dict[str, object]:
    if row is None:
        return {}
    figures = row.figures
    return {
        "user_id": row.user_id,
        "currency": row.currency,
        "symbol": row.symbol,
        "quantity": plain(canonical(figures.quantity)),
        "cost": plain(canonical(from_units(figures.cost_units))),
        "fee_rate": plain(canonical(figures.fee_rate)),
        "inverse": figures.inverse,
    }


def _text(figures: Mapping[str, object], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {figures[name]}" for name in names)
