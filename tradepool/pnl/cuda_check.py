"""Whether a backend computes right on this machine: a small book of hard rows, against numpy."""

from __future__ import annotations

from decimal import Decimal
from itertools import product

from tradepool.errors import Misconfigured
from tradepool.pnl.book import Book
from tradepool.pnl.numpy_backend import NumpyBackend
from tradepool.pnl.position import Position
from tradepool.pnl.protocol import Backend
from tradepool.pnl.sums import Limbs, Sums
from tradepool.pnl.tables import build_tables

__all__ = ["check_sums"]

_SYMBOL = "TIE/USDT"
_INVERSE = "TIE/USD:TIE"
_PRICES = {_SYMBOL: Decimal("2.5000000005"), _INVERSE: Decimal(200_000_000)}
_FEES = (Decimal(0), Decimal("0.0005"), Decimal("-0.00025"), Decimal(1))
# One after the other rows are within the narrow limit, within the wide one, and beyond it, and the sums
# leave int64: each takes other kernels.
_LARGEST = (Decimal(1000), Decimal("9000000000.00000001"), Decimal("1e19"))
_ROWS_PER_USER = 7
_COUNT = 300


def check_sums(backend: Backend) -> None:
    """Mark books that lead through every kernel. Raises: Misconfigured if any sum differs from numpy's."""
    for largest in _LARGEST:
        book = Book.from_positions(_positions(largest))
        book.upsert(_positions(largest // 3, name="late", count=_COUNT // 10), version=1)
        for prices, rows in product((_PRICES, {_SYMBOL: _PRICES[_SYMBOL]}), (False, True)):
            tables = build_tables(book.lanes, book.fees, prices, book.cost_max)
            results = []
            for each in (NumpyBackend(), backend):
                each.upload(book.columns)
                each.mark(tables, groups=len(book.groups.keys), rows=rows)
                results.append(_figures(each.download()))
            if results[0] != results[1]:
                cure = "set TRADEPOOL_PNL_BACKEND to numba or numpy, and report the device and its driver"
                raise Misconfigured(f"pnl_backend: {backend.name} computes other sums than numpy; {cure}")


def _positions(largest: Decimal, *, name: str = "t", count: int = _COUNT) -> list[Position]:
    return [
        Position(
            trade_id=f"{name}{number}",
            user_id=f"u{number // _ROWS_PER_USER}",
            currency="USDT",
            symbol=_INVERSE if number % 3 == 0 else _SYMBOL,
            market="inverse" if number % 3 == 0 else "linear",
            amount=(largest if number % 50 == 1 else Decimal(number + 1)) * (-1) ** (number % 2),
            cost=Decimal(number - count // 2) / 8,
            fee_rate=_FEES[number % len(_FEES)],
        )
        for number in range(count)
    ]


def _figures(sums: Sums) -> list[list[int]]:
    by_group_and_code: tuple[Limbs, ...] = (
        sums.unrealised,
        sums.profit,
        sums.exposure,
        sums.code_value,
        sums.code_unrealised,
    )
    rows = [] if sums.rows is None else sums.rows.tolist()
    return [*(limbs.tolist() for limbs in by_group_and_code), sums.winners.tolist(), rows]
