"""One tick: the book catches up, is marked at prices, and the marks become readable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from tradepool.marking.open_book import OpenBook
from tradepool.marking.prices import Prices, checked_prices
from tradepool.marking.write_back import WriteBack
from tradepool.model.times import parse_time
from tradepool.pnl.backend import Backends
from tradepool.pnl.marks import Marks, mark

__all__ = ["Marking"]


class Marking:
    """Keeps a book of the open trades and marks it. Threads share an instance, one at a time."""

    def __init__(
        self,
        open_book: OpenBook,
        prices: Prices,
        write_back: WriteBack,
        backends: Backends,
        now_us: Callable[[], int],
    ) -> None:
        self._open_book = open_book
        self._prices = prices
        self._write_back = write_back
        self._backends = backends
        self._now_us = now_us
        self._lock = threading.Lock()

    def set_prices(self, prices: Mapping[str, object]) -> None:
        """Store the latest price of each symbol, quote per base. Raises: InvalidTrade naming the symbol."""
        self._prices.set_prices(prices)

    def mark_to_market(
        self, prices: Mapping[str, object] | None = None, *, at: object = None, rows: bool = False
    ) -> Marks:
        """Mark every open trade at `prices` (the stored ones when None), and keep each user's marks.

        Raises: InvalidTrade naming a symbol whose price is no positive number.
        """
        checked = self._prices.latest() if prices is None else checked_prices(prices)
        at_us = self._now_us() if at is None else parse_time("at", at)
        with self._lock:
            self._open_book.catch_up()
            book = self._open_book.book
            marks = mark(book, checked, at_us, backend=self._backends.for_rows(len(book)), rows=rows)
            self._write_back.write(marks)
        return marks

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks: `at` (µs) and `by_currency`; empty before the first.

        Raises: InvalidTrade when it is no user's id.
        """
        return self._write_back.get_marks(user_id)

    def get_totals(self) -> dict[str, Any] | None:
        """What the last mark came to: `at` (µs), `totals` by currency, `missing`; None before the first."""
        return self._write_back.get_totals()
