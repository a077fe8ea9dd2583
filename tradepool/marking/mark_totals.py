"""What a tick came to over all users: by part of the pool, and the parts added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import reduce
from typing import TypeVar

import msgspec

from tradepool.errors import Corrupt
from tradepool.model.money import plain
from tradepool.pnl.decimal_rows import SymbolTally
from tradepool.pnl.marks import Marks
from tradepool.pnl.position import EXACT, from_units

__all__ = ["MarkTotals", "SymbolFigures", "newest_totals", "part_name", "totals_of"]

T = TypeVar("T")


class SymbolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A symbol in one settlement currency, as `pnl.marks.SymbolMark`; money as decimal text."""

    unrealised: str
    long_value: str
    short_value: str
    count: int


class MarkTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What the last mark came to, of the pool or of a part of it; money as decimal text."""

    at: int
    """The time of the prices, µs; of several parts the oldest."""
    backend: str
    totals: dict[str, str]
    """Unrealised PnL by currency."""
    users: int
    """How many users hold something."""
    rows: int
    """Positions in the figures."""
    missing: list[str]
    """Symbols of open positions that have no price."""
    stale: dict[str, float]
    """Symbols marked at a price that was too old to trust → its age in seconds."""
    symbols: dict[str, dict[str, SymbolFigures]]
    """Symbol → currency → figures."""


def totals_of(marks: Marks, users: int) -> MarkTotals:
    """What `marks`, of so many `users`, came to."""
    columns = marks.users.columns
    symbols: dict[str, dict[str, SymbolFigures]] = defaultdict(dict)
    for (symbol, currency), tally in marks.symbols.tallies.items():
        symbols[symbol][currency] = _figures(tally)
    return MarkTotals(
        at=marks.at,
        backend=marks.backend,
        totals={currency: plain(total) for currency, total in marks.totals.items()},
        users=users,
        rows=int(columns.count.sum()) + sum(single.count for single in columns.singles.values()),
        missing=list(marks.missing),
        stale=dict(marks.stale),
        symbols=symbols,
    )


def part_name(part: int, parts: int) -> str:
    """How a part is called among the totals."""
    return f"{part}/{parts}"


def newest_totals(stored: Mapping[str, bytes]) -> MarkTotals | None:
    """The totals of all parts (by `part_name`), added up.

    Where the pool was divided otherwise before, those of the division that was marked last, as a whole:
    one of which a part was never marked does not count. None when there is none.

    Raises: Corrupt for damaged ones; the next mark replaces them.
    """
    divisions: dict[int, list[MarkTotals]] = defaultdict(list)
    for name, totals in stored.items():
        try:
            divisions[int(name.partition("/")[2])].append(msgspec.json.decode(totals, type=MarkTotals))
        except ValueError as problem:
            raise Corrupt(
                f"the totals {name} of the last mark cannot be read ({problem}); mark again"
            ) from problem
    whole = (reduce(_both, parts) for count, parts in divisions.items() if len(parts) == count)
    return max(whole, key=lambda totals: totals.at, default=None)


def _figures(tally: SymbolTally) -> SymbolFigures:
    return SymbolFigures(
        unrealised=plain(from_units(tally.unrealised)),
        long_value=plain(from_units(tally.long_value)),
        short_value=plain(from_units(tally.short_value)),
        count=tally.count,
    )


def _both(one: MarkTotals, other: MarkTotals) -> MarkTotals:
    symbols = {
        symbol: _joined(one.symbols.get(symbol, {}), other.symbols.get(symbol, {}), _both_figures)
        for symbol in one.symbols | other.symbols
    }
    return MarkTotals(
        at=min(one.at, other.at),
        backend=", ".join(sorted({*one.backend.split(", "), *other.backend.split(", ")})),
        totals=_joined(one.totals, other.totals, _sum),
        users=one.users + other.users,
        rows=one.rows + other.rows,
        missing=sorted({*one.missing, *other.missing}),
        stale=_joined(one.stale, other.stale, max),
        symbols=symbols,
    )


def _both_figures(one: SymbolFigures, other: SymbolFigures) -> SymbolFigures:
    return SymbolFigures(
        unrealised=_sum(one.unrealised, other.unrealised),
        long_value=_sum(one.long_value, other.long_value),
        short_value=_sum(one.short_value, other.short_value),
        count=one.count + other.count,
    )


def _joined(one: Mapping[str, T], other: Mapping[str, T], both: Callable[[T, T], T]) -> dict[str, T]:
    """Both mappings; what stands in both is put together by `both`."""
    return {**one, **{key: both(one[key], value) if key in one else value for key, value in other.items()}}


def _sum(one: str, other: str) -> str:
    return plain(EXACT.add(Decimal(one), Decimal(other)))
