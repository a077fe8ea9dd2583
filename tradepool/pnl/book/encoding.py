"""Positions as rows of a book's columns, a whole batch at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import COST_MAX, Rows
from tradepool.pnl.book.lanes import Numbering, lots_columns
from tradepool.pnl.position import FigureColumns, Position

__all__ = ["Encoded", "encode"]


class Encoded(NamedTuple):
    """A batch of positions as rows, and which of them fit the columns."""

    rows: Rows
    fits: npt.NDArray[np.bool_]
    """False where the row only stands for a position that has to stay decimal."""


def encode(positions: Sequence[Position], figures: FigureColumns, numbering: Numbering) -> Encoded:
    """The rows of `positions`, whose figures these are; what has no number yet gets one."""
    users, currencies, symbols = _names(positions)
    exponents, lots = lots_columns(figures.quantities)
    fee_classes = numbering.fees.numbers(figures.fee_rates)
    costs, inverse = figures.cost_units.copy(), figures.inverse
    fits = np.ones(len(positions), np.bool_)
    if None in exponents or None in fee_classes or max(map(abs, costs)) > COST_MAX:
        for index, (exponent, fee_class, cost) in enumerate(zip(exponents, fee_classes, costs, strict=True)):
            if exponent is None or fee_class is None or abs(cost) > COST_MAX:
                fits[index] = False
                exponents[index], lots[index], fee_classes[index], costs[index] = 0, 0, 0, 0
    lane = np.array(numbering.lanes.numbers(symbols, currencies, inverse, exponents), np.int32)
    signed = np.array(lots, np.int64)
    rows = Rows(
        np.array(numbering.groups.numbers(users, currencies), np.int32),
        2 * lane + (signed < 0),
        signed,
        np.array(costs, np.int64),
        np.array(fee_classes, np.uint16),
    )
    return Encoded(rows, fits)


def _names(positions: Sequence[Position]) -> tuple[list[str], list[str], list[str]]:
    return (
        [position.user_id for position in positions],
        [position.currency for position in positions],
        [position.symbol for position in positions],
    )
