"""Marking a book: what its open positions are worth at one vector of prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt

from tradepool.pnl.backend import Backend
from tradepool.pnl.book import Book
from tradepool.pnl.columns import DEAD_CODE, Columns, Ints
from tradepool.pnl.decimal_rows import DecimalRow, SymbolTally, UserTally, fold_rows
from tradepool.pnl.numpy_backend import NumpyBackend
from tradepool.pnl.position import from_units
from tradepool.pnl.sums import Sums
from tradepool.pnl.tables import Tables, build_tables, usable_prices

__all__ = ["Marks", "SymbolMark", "UserMark", "mark"]

_Tally = tuple[int, int, int, int, int]
"""Unrealised, profit, exposure, winners and count; money in 10⁻⁸."""
_NOTHING: _Tally = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMark:
    """The open positions of one user in one settlement currency."""

    unrealised: Decimal
    """Σ value − exit fee − cost."""
    profit: Decimal
    """Σ of the positive ones among them."""
    exposure: Decimal
    """Σ |value|."""
    winners: int
    """How many positions are above 0."""
    count: int
    """How many were marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolMark:
    """The open positions in one symbol, in one settlement currency."""

    unrealised: Decimal
    long_value: Decimal
    """Σ |value| of the longs."""
    short_value: Decimal
    """−Σ |value| of the shorts."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The figures of one tick, exact to 10⁻⁸; different currencies are never added.

    Positions whose symbol has no price are in none of the figures; `missing` names those symbols.
    """

    at: int
    """The time of the prices, µs UTC, as given."""
    backend: str
    users: Mapping[tuple[str, str], UserMark]
    """By (user, currency); worked out on access, so keep what you read twice."""
    symbols: Mapping[tuple[str, str], SymbolMark]
    """By (symbol, currency)."""
    totals: Mapping[str, Decimal]
    """Unrealised PnL by currency."""
    missing: tuple[str, ...]
    rows: Mapping[str, Decimal] | None
    """Unrealised PnL by trade, where it was asked for."""


def mark(
    book: Book,
    prices: Mapping[str, Decimal],
    at: int,
    *,
    backend: Backend | None = None,
    rows: bool = False,
) -> Marks:
    """Mark every position of `book` at `prices` (by symbol), the prices of time `at` (µs UTC).

    Pass the same `backend` on every tick: it then only takes what changed in the book since the last one.

    Raises: InvalidTrade naming a symbol whose price is not a finite Decimal above 0.
    """
    backend = backend or NumpyBackend()
    usable, missing = usable_prices(book.symbols(), prices)
    tables = build_tables(book.lanes, book.fees, usable, book.cost_max)
    sums = _run(backend, book, tables, rows=rows)
    outside = _rows_outside(book.columns, tables)
    singles = fold_rows(chain(_beyond_limit(book, tables, outside), book.decimal_rows.values()), usable)
    symbols = _symbol_tallies(book, sums, outside, singles.symbols)
    return Marks(
        at=at,
        backend=backend.name,
        users=_UserMarks(book.groups.keys, _group_counts(book, outside), sums, singles.users),
        symbols={key: _symbol_mark(tally) for key, tally in symbols.items()},
        totals=_totals(symbols),
        missing=missing,
        rows=_row_marks(book, sums.rows, outside, singles.rows),
    )


class _UserMarks(Mapping[tuple[str, str], UserMark]):
    """The marks of all users, made on access: a tick costs nothing for users that nobody reads."""

    def __init__(
        self,
        keys: Sequence[tuple[str, str]],
        counts: Sequence[int],
        sums: Sums,
        singles: Mapping[tuple[str, str], UserTally],
    ) -> None:
        self._keys = keys
        self._counts = counts
        self._sums = sums
        self._singles = singles

    def __getitem__(self, key: tuple[str, str]) -> UserMark:
        return _user_mark(self._tallies[key])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._tallies)

    def __len__(self) -> int:
        return len(self._tallies)

    @cached_property
    def _tallies(self) -> dict[tuple[str, str], _Tally]:
        sums = self._sums
        columns = (
            sums.unrealised.tolist(),
            sums.profit.tolist(),
            sums.exposure.tolist(),
            sums.winners.tolist(),
        )
        # The book may have appended keys since the tick; the other columns end where they did then.
        rows = zip(self._keys, zip(*columns, self._counts, strict=True), strict=False)
        tallies: dict[tuple[str, str], _Tally] = {key: tally for key, tally in rows if tally[-1]}
        for key, single in self._singles.items():
            tally = tallies.get(key, _NOTHING)
            tallies[key] = (
                tally[0] + single.unrealised,
                tally[1] + single.profit,
                tally[2] + single.exposure,
                tally[3] + single.winners,
                tally[4] + single.count,
            )
        return tallies


def _run(backend: Backend, book: Book, tables: Tables, *, rows: bool) -> Sums:
    if backend.generation is book.columns.generation:
        backend.apply(book.columns)
    else:
        backend.upload(book.columns)
    backend.mark(tables, groups=len(book.groups.keys), rows=rows)
    return backend.download()


def _rows_outside(columns: Columns, tables: Tables) -> npt.NDArray[np.intp]:
    """The rows no kernel counted: their lane has no price, or they are beyond its limit."""
    if not tables.partial:
        return np.empty(0, np.intp)
    return np.flatnonzero(np.abs(columns.lots) > tables.limit[columns.code])


def _beyond_limit(book: Book, tables: Tables, outside: npt.NDArray[np.intp]) -> Iterator[DecimalRow]:
    """Those rows outside that have a price."""
    priced = tables.limit[book.columns.code[outside]] >= 0
    return map(book.decimal_row, outside[priced].tolist())


def _group_counts(book: Book, outside: npt.NDArray[np.intp]) -> list[int]:
    return _less(book.groups.counts, book.columns.group[outside])


def _less(counts: list[int], numbers: npt.NDArray[np.int32]) -> list[int]:
    """A copy of `counts`, one less at each of `numbers`."""
    left = counts.copy()
    for number, times in zip(
        *(found.tolist() for found in np.unique(numbers, return_counts=True)), strict=True
    ):
        left[number] -= times
    return left


def _symbol_tallies(
    book: Book,
    sums: Sums,
    outside: npt.NDArray[np.intp],
    singles: Mapping[tuple[str, str], SymbolTally],
) -> dict[tuple[str, str], SymbolTally]:
    """The lanes of each symbol and its single rows together."""
    tallies = {key: replace(tally) for key, tally in singles.items()}
    counts = _less(book.lanes.counts, book.columns.code[outside] >> 1)
    value, unrealised = sums.code_value.tolist(), sums.code_unrealised.tolist()
    for number, (lane, count) in enumerate(zip(book.lanes.keys, counts, strict=True)):
        if not count:
            continue
        # The kernel's value of an inverse long is negative.
        sign = -1 if lane.inverse else 1
        tally = tallies.setdefault((lane.symbol, lane.currency), SymbolTally())
        tally.unrealised += unrealised[2 * number] + unrealised[2 * number + 1]
        tally.long_value += sign * value[2 * number]
        tally.short_value += sign * value[2 * number + 1]
        tally.count += count
    return tallies


def _totals(symbols: Mapping[tuple[str, str], SymbolTally]) -> dict[str, Decimal]:
    totals: dict[str, int] = {}
    for (_, currency), tally in symbols.items():
        totals[currency] = totals.get(currency, 0) + tally.unrealised
    return {currency: from_units(units) for currency, units in totals.items()}


def _row_marks(
    book: Book, marked: Ints | None, outside: npt.NDArray[np.intp], singles: Mapping[str, int]
) -> dict[str, Decimal] | None:
    if marked is None:
        return None
    counted = book.columns.code != DEAD_CODE
    counted[outside] = False
    indices = np.flatnonzero(counted)
    units = zip(indices.tolist(), marked[indices].tolist(), strict=True)
    rows = {book.trade_id(index): from_units(unrealised) for index, unrealised in units}
    return rows | {trade_id: from_units(unrealised) for trade_id, unrealised in singles.items()}


def _user_mark(tally: _Tally) -> UserMark:
    unrealised, profit, exposure, winners, count = tally
    return UserMark(
        unrealised=from_units(unrealised),
        profit=from_units(profit),
        exposure=from_units(exposure),
        winners=winners,
        count=count,
    )


def _symbol_mark(tally: SymbolTally) -> SymbolMark:
    return SymbolMark(
        unrealised=from_units(tally.unrealised),
        long_value=from_units(tally.long_value),
        short_value=from_units(tally.short_value),
        count=tally.count,
    )
