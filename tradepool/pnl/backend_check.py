"""Whether a backend computes right on this machine: a small book of hard rows, against numpy."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import product

from tradepool.errors import Misconfigured
from tradepool.pnl.book import Book
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.position import Position
from tradepool.pnl.protocol import Backend
from tradepool.pnl.sums import Limbs, Sums
from tradepool.pnl.tables import build_tables

__all__ = ["check_sums"]

_SYMBOL = "TIE/USDT"
_INVERSE = "TIE/USD:TIE"
_RARE = "RARE/USDT"
_PRICES = {_SYMBOL: Decimal("2.5000000005"), _INVERSE: Decimal(200_000_000), _RARE: Decimal("0.3")}
_FEES = (Decimal(0), Decimal("0.0005"), Decimal("-0.00025"), Decimal(1))
# One after the other rows are within the narrow limit, within the wide one, and beyond it, and the sums
# leave int64: each takes other kernels.
_LARGEST = (Decimal(1000), Decimal("9000000000.00000001"), Decimal("1e19"))
_ROWS_PER_USER = 7
_COUNT = 300
_CHANGED = 5


def check_sums(backend: Backend) -> None:
    """Mark books that lead through every kernel. Raises: Misconfigured if any sum differs from numpy's."""
    for largest in _LARGEST:
        book = Book.from_positions(_positions(largest))
        book.upsert(_positions(largest // 3, name="late", count=_COUNT // 10), version=1)
        for prices, rows in product(({_SYMBOL: _PRICES[_SYMBOL]}, _PRICES), (True, False)):
            backend.upload(book.columns)
            _compare(backend, book, prices, rows=rows)
        # So little that a backend may go on from its last sums.
        book.upsert(_positions(largest // 7, count=_CHANGED), version=2)
        backend.apply(book.columns)
        _compare(backend, book, _PRICES | {_RARE: Decimal("0.7")}, rows=False)


def _compare(backend: Backend, book: Book, prices: Mapping[str, Decimal], *, rows: bool) -> None:
    tables, groups = build_tables(book.lanes, book.fees, prices, book.cost_max), len(book.groups.keys)
    reference = NumpyBackend()
    reference.upload(book.columns)
    for each in (reference, backend):
        each.mark(tables, groups=groups, rows=rows)
    if _figures(reference.download()) != _figures(backend.download()):
        cure = "set TRADEPOOL_PNL_BACKEND to another one, and report the machine and the versions on it"
        raise Misconfigured(f"pnl_backend: {backend.name} computes other sums than numpy; {cure}")


def _positions(largest: Decimal, *, name: str = "t", count: int = _COUNT) -> list[Position]:
    return [
        Position(
            trade_id=f"{name}{number}",
            user_id=f"u{number // _ROWS_PER_USER}",
            currency="USDT",
            symbol=_symbol(number),
            market="inverse" if _symbol(number) == _INVERSE else "linear",
            amount=(largest if number % 50 == 1 else Decimal(number + 1)) * (-1) ** (number % 2),
            cost=Decimal(number - count // 2) / 8,
            fee_rate=_FEES[number % len(_FEES)],
        )
        for number in range(count)
    ]


def _symbol(number: int) -> str:
    if number % 50 == 2:  # noqa: PLR2004 - few rows, and not those of the largest amount
        return _RARE
    return _INVERSE if number % 3 == 0 else _SYMBOL


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
