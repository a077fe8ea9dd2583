"""Exact division and row marking over one cache-sized block, in numpy and without temporaries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Columns, Floats, Ints, Rows
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE
from tradepool.pnl.tables import Tables

__all__ = ["BlockMarks", "Divider", "RowKernel", "RowRatios"]

# 1.5 · 2⁵²: adding it to |x| < 2⁵¹ rounds x half to even and leaves the integer in the low bits.
_ROUNDER = 6755399441055744.0
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))
_SIGN_SHIFT = 63


class RowRatios(NamedTuple):
    """M/D of every row of a block, exactly and as float64 estimates; see tables.py."""

    multiplier: Ints
    divisor: Ints | int
    quotient: Floats
    reciprocal: Floats | float
    """1/D; the narrow kernel does not read it."""


class BlockMarks(NamedTuple):
    """Marks of one block in 10⁻⁸; views of scratch memory, valid until the next block."""

    codes: npt.NDArray[np.intp]
    """The code of each row."""
    value: Ints
    magnitude: Ints
    """|value|."""
    unrealised: Ints


class Divider:
    """Divides quantity · M by D, half to even, over up to `rows` rows within the guard of tables.py."""

    def __init__(self, rows: int) -> None:
        self._estimate = np.empty(rows)
        self._residue = np.empty(rows, np.int64)
        self._spare = np.empty(rows, np.int64)

    def narrow(self, quantity: Ints, ratios: RowRatios, out: Ints) -> None:
        """Into `out`, where |result| ≤ 2⁵⁰ − 1: one estimate, the result or one below."""
        estimate = self._estimate[: len(out)]
        np.multiply(quantity, ratios.quotient, out=estimate)
        _round_lowered(estimate, out)
        self._take_residue(quantity, ratios, out)
        self._settle(ratios.divisor, out)

    def wide(self, quantity: Ints, ratios: RowRatios, out: Ints) -> None:
        """Into `out`, where |result| < 2⁶¹: the estimate is corrected by its residue over D first."""
        estimate, residue, correction = self._scratch(len(out))
        np.multiply(quantity, ratios.quotient, out=estimate)
        _round_into(estimate, out)
        self._take_residue(quantity, ratios, out)
        np.multiply(residue, ratios.reciprocal, out=estimate)
        _round_lowered(estimate, correction)
        np.add(out, correction, out=out)
        np.multiply(correction, ratios.divisor, out=correction)
        np.subtract(residue, correction, out=residue)
        self._settle(ratios.divisor, out)

    def _take_residue(self, quantity: Ints, ratios: RowRatios, result: Ints) -> None:
        _, residue, product = self._scratch(len(result))
        np.multiply(quantity, ratios.multiplier, out=residue)
        np.multiply(result, ratios.divisor, out=product)
        np.subtract(residue, product, out=residue)

    def _settle(self, divisor: Ints | int, result: Ints) -> None:
        """Add one to `result` where twice the residue is above D, or is D while `result` is odd."""
        _, twice, reach = self._scratch(len(result))
        np.add(twice, twice, out=twice)
        np.bitwise_and(result, 1, out=reach)
        np.subtract(divisor, reach, out=reach)
        np.subtract(reach, twice, out=reach)
        # A negative number shifted by 63 is −1, any other 0.
        np.right_shift(reach, _SIGN_SHIFT, out=reach)
        np.subtract(result, reach, out=result)

    def _scratch(self, rows: int) -> tuple[Floats, Ints, Ints]:
        return self._estimate[:rows], self._residue[:rows], self._spare[:rows]


class RowKernel:
    """Marks the rows of a book block by block, with scratch memory for one block of `rows`."""

    def __init__(self, rows: int) -> None:
        self._divider = Divider(rows)
        self._codes = np.empty(rows, np.intp)
        self._multiplier, self._divisor = np.empty(rows, np.int64), np.empty(rows, np.int64)
        self._quotient, self._reciprocal = np.empty(rows), np.empty(rows)
        self._value, self._magnitude = np.empty(rows, np.int64), np.empty(rows, np.int64)
        self._unrealised, self._fee = np.empty(rows, np.int64), np.empty(rows, np.int64)

    def mark(self, columns: Columns | Rows, tables: Tables, start: int, stop: int) -> BlockMarks:
        """Value and unrealised PnL of the rows `start` to `stop`; 0 where a row is beyond its limit."""
        codes, value = self._codes[: stop - start], self._value[: stop - start]
        magnitude, unrealised = self._magnitude[: stop - start], self._unrealised[: stop - start]
        divide = self._divider.wide if tables.wide else self._divider.narrow
        np.copyto(codes, columns.code[start:stop])
        lots, fee_class = columns.lots[start:stop], columns.fee_class[start:stop]
        divide(lots, self._ratios(tables, codes), value)
        np.abs(value, out=magnitude)
        np.subtract(value, columns.cost[start:stop], out=unrealised)
        if fee_class.any():
            fee = self._fee[: stop - start]
            divide(magnitude, self._fee_ratios(tables, fee_class), fee)
            np.subtract(unrealised, fee, out=unrealised)
        if tables.partial:
            beyond = np.abs(lots) > tables.limit[codes]
            for marks in (value, magnitude, unrealised):
                marks[beyond] = 0
        return BlockMarks(codes, value, magnitude, unrealised)

    def _ratios(self, tables: Tables, codes: npt.NDArray[np.intp]) -> RowRatios:
        size = len(codes)
        reciprocal = self._reciprocal[:size]
        if tables.wide:
            tables.reciprocal.take(codes, out=reciprocal, mode="clip")
        # Codes are in range by construction; "clip" is the mode that writes to `out` without a buffer.
        return RowRatios(
            tables.multiplier.take(codes, out=self._multiplier[:size], mode="clip"),
            tables.divisor.take(codes, out=self._divisor[:size], mode="clip"),
            tables.quotient.take(codes, out=self._quotient[:size], mode="clip"),
            reciprocal,
        )

    def _fee_ratios(self, tables: Tables, fee_class: npt.NDArray[np.uint16]) -> RowRatios:
        size = len(fee_class)
        return RowRatios(
            tables.fee_rate.take(fee_class, out=self._multiplier[:size], mode="clip"),
            FEE_UNITS_PER_ONE,
            tables.fee_quotient.take(fee_class, out=self._quotient[:size], mode="clip"),
            1 / FEE_UNITS_PER_ONE,
        )


def _round_lowered(estimate: Floats, out: Ints) -> None:
    """Half less than `estimate`, rounded, where that is below 2⁵¹. Overwrites `estimate`."""
    np.subtract(estimate, 0.5, out=estimate)
    np.add(estimate, _ROUNDER, out=estimate)
    np.subtract(estimate.view(np.int64), _ROUNDER_BITS, out=out)


def _round_into(estimate: Floats, out: Ints) -> None:
    np.rint(estimate, out=estimate)
    # Only rows beyond their limit leave int64 here, and those are set to 0 afterwards.
    with np.errstate(invalid="ignore"):
        np.copyto(out, estimate, casting="unsafe")
