"""A book netted: one position for all trades of a user that any prices value alike, up to rounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book import Book
from tradepool.pnl.book.columns import DEAD_CODE, Columns, Ints
from tradepool.pnl.book.lanes import Lane
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.pnl.position import EXACT, Figures
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK, Limbs

__all__ = ["Net", "NetRow", "net"]

_HIGH_MAX = 2**30
"""High halves up to here leave a sum of lots in int64."""
_FEE_PLACES = 7
_BY_POSITION = ("group", "lane", "fee_class", "lots", "cost_low", "cost_high", "count")

_CELLS_PER_ROW = 4
"""A table of all possible net positions is faster than sorting while it is no larger than this."""

_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetRow:
    """Positions that do not fit the arrays of `Net`, netted with exact figures."""

    user_id: str
    currency: str
    symbol: str
    figures: Figures
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """The net positions of a book, sorted by group; it stays as it is when the book moves on.

    Trades are netted that share (user, currency), lane, direction and fee class. Where the class is no
    fee, longs and shorts are netted against each other as well: a value without a fee is linear in the lots.
    """

    group: npt.NDArray[np.int32]
    """Index into `groups`, ascending."""
    lane: npt.NDArray[np.int32]
    """Index into `lanes`."""
    fee_class: npt.NDArray[np.uint16]
    """Index into `fee_rates`."""
    lots: Ints
    """Signed, the exact sum of the trades'."""
    cost_low: Ints
    cost_high: Ints
    """The exact sum of the trades' costs, 10⁻⁸, is high · 2³² + low."""
    count: npt.NDArray[np.intp]
    """How many trades are netted in each."""
    groups: tuple[tuple[str, str], ...]
    """(user, currency)."""
    lanes: tuple[Lane, ...]
    fee_rates: tuple[int, ...]
    """In 10⁻⁷."""
    rows: tuple[NetRow, ...]

    def row(self, index: int) -> NetRow:
        """The net position at `index` with exact figures."""
        return self.row_of(index, int(self.lots[index]))

    def row_of(self, index: int, lots: int) -> NetRow:
        """The same, of that many lots, which may be beyond int64."""
        lane = self.lanes[self.lane[index]]
        user_id, currency = self.groups[self.group[index]]
        figures = Figures(
            quantity=EXACT.scaleb(lots, -lane.exponent),
            cost_units=(int(self.cost_high[index]) << LIMB_BITS) + int(self.cost_low[index]),
            fee_rate=EXACT.scaleb(self.fee_rates[self.fee_class[index]], -_FEE_PLACES),
            inverse=lane.inverse,
        )
        count = int(self.count[index])
        return NetRow(user_id=user_id, currency=currency, symbol=lane.symbol, figures=figures, count=count)

    def symbols(self) -> set[str]:
        """The symbols of all net positions."""
        return {self.lanes[lane].symbol for lane in np.unique(self.lane)} | {row.symbol for row in self.rows}


def net(book: Book) -> Net:
    """Net `book`, in O(rows); it copies what it needs, so the book may change afterwards."""
    columns = book.columns
    netted, count, number = _numbered(columns)
    lots, cost = Limbs.zeros(len(count)), Limbs.zeros(len(count))
    lots.scatter(number, columns.lots)
    cost.scatter(number, columns.cost)
    high = lots.high + (lots.low >> LIMB_BITS)
    everything = Net(
        group=netted.group,
        lane=netted.code >> 1,
        fee_class=netted.fee_class,
        lots=(high << LIMB_BITS) + (lots.low & LIMB_MASK),
        cost_low=cost.low,
        cost_high=cost.high,
        count=count,
        groups=tuple(book.groups.keys),
        lanes=tuple(book.lanes.keys),
        fee_rates=tuple(book.fees.rates),
        rows=tuple(_netted_rows(book.decimal_rows.values())),
    )
    is_beyond = np.abs(high) >= _HIGH_MAX
    exact = dict(zip(np.flatnonzero(is_beyond).tolist(), _exactly(lots, is_beyond), strict=True))
    kept = np.flatnonzero(~is_beyond & (netted.code != DEAD_CODE))
    fitting: dict[str, Any] = {name: getattr(everything, name)[kept] for name in _BY_POSITION}
    rows = (everything.row_of(index, size) for index, size in exact.items())
    return replace(everything, rows=(*everything.rows, *rows), **fitting)


class _Keys(NamedTuple):
    """What trades are netted by."""

    group: npt.NDArray[np.int32]
    code: npt.NDArray[np.int32]
    fee_class: npt.NDArray[np.uint16]


def _numbered(columns: Columns) -> tuple[_Keys, Ints, _Indices]:
    """The net positions in order of their keys, how many rows each has, and which one each row is in."""
    fee_class = columns.fee_class.astype(np.int64)
    code = columns.code.astype(np.int64)
    code[fee_class == 0] &= ~1
    codes, classes = int(code.max(initial=0)) + 1, int(fee_class.max(initial=0)) + 1
    cells = (int(columns.group.max(initial=0)) + 1) * codes * classes
    assert cells < 2**63
    key = (columns.group * codes + code) * classes + fee_class
    if cells <= _CELLS_PER_ROW * len(key):
        counts = np.bincount(key, minlength=cells)
        keys = np.flatnonzero(counts)
        count, number = counts[keys], (np.cumsum(counts != 0) - 1)[key]
    else:
        keys, number, count = np.unique(key, return_inverse=True, return_counts=True)
    group_code, of_class = np.divmod(keys, classes)
    group, of_code = np.divmod(group_code, codes)
    netted = _Keys(group.astype(np.int32), of_code.astype(np.int32), of_class.astype(np.uint16))
    return netted, count, number


def _exactly(lots: Limbs, chosen: npt.NDArray[np.bool_]) -> list[int]:
    halves = zip(lots.high[chosen].tolist(), lots.low[chosen].tolist(), strict=True)
    return [(high << LIMB_BITS) + low for high, low in halves]


def _netted_rows(rows: Iterable[DecimalRow]) -> Iterator[NetRow]:
    parts: dict[tuple[object, ...], list[DecimalRow]] = defaultdict(list)
    for row in rows:
        quantity, _, fee_rate, inverse = row.figures
        is_short = bool(fee_rate) and quantity < 0
        parts[row.user_id, row.currency, row.symbol, inverse, fee_rate, is_short].append(row)
    for netted in parts.values():
        first = netted[0]
        quantity = Decimal(0)
        for row in netted:
            quantity = EXACT.add(quantity, row.figures.quantity)
        cost_units = sum(row.figures.cost_units for row in netted)
        yield NetRow(
            user_id=first.user_id,
            currency=first.currency,
            symbol=first.symbol,
            figures=first.figures._replace(quantity=quantity, cost_units=cost_units),
            count=len(netted),
        )
