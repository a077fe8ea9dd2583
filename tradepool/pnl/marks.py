"""Marking a book: what its open positions are worth at one vector of prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from types import MappingProxyType

import numpy as np

from tradepool.pnl.book import Book
from tradepool.pnl.book.columns import DEAD_CODE, Ints
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.decimal_rows import UserTally, fold_rows
from tradepool.pnl.outside import Indices, Outside, rows_outside
from tradepool.pnl.position import from_units
from tradepool.pnl.protocol import Backend
from tradepool.pnl.sums import Sums
from tradepool.pnl.symbol_marks import SymbolMark, SymbolMarks, symbol_tallies
from tradepool.pnl.tables import Tables, build_tables, usable_prices
from tradepool.pnl.user_marks import UserColumns, UserMark, UserMarks

__all__ = ["Marks", "SymbolMark", "UserMark", "mark"]

_NOTHING_STALE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The figures of one tick, exact to 10⁻⁸; different currencies are never added.

    Positions whose symbol has no price are in none of the figures: `missing` names those symbols, and
    `UserMark.unmarked` counts the positions. Figures become Decimals when they are read, from what the
    tick left behind; changes of the book after it do not reach them.
    """

    at: int
    """The time of the prices, µs UTC, as given."""
    backend: str
    users: UserMarks
    """By (user, currency), of all who hold something; the first access works out all of them."""
    symbols: SymbolMarks
    """By (symbol, currency)."""
    totals: Mapping[str, Decimal]
    """Unrealised PnL by currency."""
    missing: tuple[str, ...]
    """Symbols of open positions that have no price, sorted."""
    stale: Mapping[str, float]
    """Symbols of open positions that were marked at a price too old to trust, and its age in seconds."""
    rows: Mapping[str, Decimal] | None
    """Unrealised PnL by trade, where it was asked for."""


def mark(
    book: Book,
    prices: Mapping[str, Decimal],
    at: int,
    *,
    backend: Backend | None = None,
    rows: bool = False,
    stale: Mapping[str, float] = _NOTHING_STALE,
) -> Marks:
    """Mark every position of `book` at `prices` (by symbol), the prices of time `at` (µs UTC).

    Pass the same `backend` on every tick: it then only takes what changed in the book since the last one.
    `stale` says which prices are too old, and their age in seconds: they count, but are named.

    Raises: InvalidTrade naming a symbol whose price is not a finite Decimal above 0.
    """
    backend = backend or NumpyBackend()
    symbols = book.symbols()
    usable, missing = usable_prices(symbols, prices)
    tables = build_tables(book.lanes, book.fees, usable, book.cost_max)
    sums = _run(backend, book, tables, rows=rows)
    outside = rows_outside(book, tables)
    beyond = map(book.decimal_row, outside.beyond.tolist())
    singles = fold_rows(chain(beyond, book.decimal_rows.values()), usable)
    lane_counts = _less(book.lanes.counts, book.columns.code[outside.rows] >> 1)
    by_symbol = SymbolMarks(symbol_tallies(book.lanes, lane_counts, sums, singles.symbols))
    return Marks(
        at=at,
        backend=backend.name,
        users=UserMarks(_user_columns(book, sums, outside, singles.users)),
        symbols=by_symbol,
        totals=by_symbol.totals(),
        missing=missing,
        stale={symbol: stale[symbol] for symbol in stale.keys() & usable.keys()},
        rows=_row_marks(book, sums.rows, outside.rows, singles.rows),
    )


def _run(backend: Backend, book: Book, tables: Tables, *, rows: bool) -> Sums:
    if backend.generation is book.columns.generation:
        backend.apply(book.columns)
    else:
        backend.upload(book.columns)
    backend.mark(tables, groups=len(book.groups.keys), rows=rows)
    return backend.download()


def _user_columns(
    book: Book, sums: Sums, outside: Outside, singles: Mapping[tuple[str, str], UserTally]
) -> UserColumns:
    group = book.columns.group
    return UserColumns(
        groups=book.groups.keys,
        unrealised=sums.unrealised,
        profit=sums.profit,
        exposure=sums.exposure,
        winners=sums.winners,
        count=_less(book.groups.counts, group[outside.rows]),
        unmarked=np.bincount(group[outside.unpriced], minlength=len(sums.winners)),
        singles=singles,
    )


def _less(counts: Iterable[int], numbers: np.ndarray) -> Ints:
    """`counts`, one less at each of `numbers`."""
    left = np.array(counts, np.int64)
    return left - np.bincount(numbers, minlength=len(left)) if len(numbers) else left


def _row_marks(
    book: Book, marked: Ints | None, outside: Indices, singles: Mapping[str, int]
) -> dict[str, Decimal] | None:
    if marked is None:
        return None
    counted = book.columns.code != DEAD_CODE
    counted[outside] = False
    indices = np.flatnonzero(counted)
    rows = dict(zip(book.trade_ids(indices), map(from_units, marked[indices].tolist()), strict=True))
    return rows | {trade_id: from_units(unrealised) for trade_id, unrealised in singles.items()}
