"""Digests of positions: whether two books hold the same, part by part, without comparing their rows.

The digest of a part is the sum, modulo 2⁶⁴, of one hash for each position, so no order matters. What is
hashed is what a position means, not how a book holds it: a quantity has one lot size whatever came before,
and a row that has to stay decimal is hashed as the columns would hold it, as far as they could.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import DEAD_CODE, Columns, Indices, Ints
from tradepool.pnl.book.hashing import BLOCK_ROWS, Words, absorb, hashes_of
from tradepool.pnl.book.lanes import FEE_PLACES, Lane, Numbering, lots_of
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.pnl.position import EXACT

__all__ = ["digests_by_part"]

_NO_EXPONENT = -1

Hashed = Iterator[tuple[Indices, Words]]
"""Groups of some rows, and the hashes of the rows."""


def digests_by_part(
    columns: Columns,
    id_hashes: Callable[[Indices], Words],
    decimal_rows: Sequence[DecimalRow],
    numbering: Numbering,
    part_of_group: npt.ArrayLike,
    parts: int,
) -> list[tuple[int, int]]:
    """The digest and the count of the positions in each part; `id_hashes` gives those of slots.

    Groups of a negative part are left out, and cost next to nothing.
    """
    part_of = np.asarray(part_of_group, np.intp)
    number = numbering.groups.number
    counted = [row for row in decimal_rows if part_of[number((row.user_id, row.currency))] >= 0]
    digests, counts = np.zeros(parts, np.uint64), np.zeros(parts, np.int64)
    for group, hashes in chain(
        _rows(columns, id_hashes, numbering, part_of >= 0), _decimal_rows(counted, numbering)
    ):
        np.add.at(digests, part_of[group], hashes)
        np.add.at(counts, part_of[group], 1)
    return list(zip(digests.tolist(), counts.tolist(), strict=True))


def _rows(
    columns: Columns,
    id_hashes: Callable[[Indices], Words],
    numbering: Numbering,
    is_counted: npt.NDArray[np.bool_],
) -> Hashed:
    lane_hashes = _lane_hashes(numbering.lanes.keys)
    keys, counted = numbering.groups.keys, np.flatnonzero(is_counted)
    group_hashes = np.zeros(len(is_counted), np.uint64)
    group_hashes[counted] = _group_hashes([keys[group] for group in counted.tolist()])
    rates = np.array(numbering.fees.rates, np.int64)
    for start in range(0, columns.size, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        where = (columns.code[block] != DEAD_CODE) & is_counted[columns.group[block]]
        live = start + np.flatnonzero(where)
        group, code, lots, cost, fee_class = columns.rows(live)
        names = absorb(id_hashes(columns.slot[live]), group_hashes[group], lane_hashes[code >> 1])
        yield group, absorb(names, lots, cost, rates[fee_class])


def _decimal_rows(rows: Sequence[DecimalRow], numbering: Numbering) -> Hashed:
    if not rows:
        return
    figures = [row.figures for row in rows]
    keys = [(row.user_id, row.currency) for row in rows]
    sizes = [lots_of(each.quantity) or (_NO_EXPONENT, each.quantity) for each in figures]
    lanes = [
        Lane(row.symbol, row.currency, row.figures.inverse, exponent)
        for row, (exponent, _) in zip(rows, sizes, strict=True)
    ]
    names = absorb(hashes_of([row.trade_id for row in rows]), _group_hashes(keys), _lane_hashes(lanes))
    hashes = absorb(
        names,
        _words(lots for _, lots in sizes),
        _words(each.cost_units for each in figures),
        _words(EXACT.scaleb(each.fee_rate, FEE_PLACES) for each in figures),
    )
    yield np.array([numbering.groups.number(key) for key in keys], np.intp), hashes


def _group_hashes(keys: Sequence[tuple[str, str]]) -> Words:
    return absorb(hashes_of([user_id for user_id, _ in keys]), hashes_of([currency for _, currency in keys]))


def _lane_hashes(lanes: Sequence[Lane]) -> Words:
    inverse: Ints = np.array([lane.inverse for lane in lanes], np.int64)
    return absorb(
        hashes_of([lane.symbol for lane in lanes]), inverse, np.array([lane.exponent for lane in lanes])
    )


def _words(numbers: Iterable[int | Decimal]) -> Words:
    """Numbers as words: an int64 as it is, everything else as the hash of its shortest text."""
    return np.array([_word(number) for number in numbers], np.uint64)


def _word(number: int | Decimal) -> int:
    whole = int(number)
    if whole == number and -(2**63) <= whole < 2**63:
        return whole % 2**64
    return int(hashes_of([str(EXACT.normalize(Decimal(number)))])[0])
