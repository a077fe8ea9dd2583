"""One tick: the book catches up, is marked at prices, and the marks become readable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tradepool.marking.book_check import BookCheck, check_book
from tradepool.marking.mark_totals import MarkTotals
from tradepool.marking.open_book import OpenBook
from tradepool.marking.prices import Prices, checked_prices
from tradepool.marking.stress import StressTesting, stress_question
from tradepool.marking.tick import Tick
from tradepool.marking.write_back import WriteBack
from tradepool.model.times import parse_time
from tradepool.pnl.backend import Backends
from tradepool.pnl.marks import Marks, mark
from tradepool.pnl.stress.results import StressTest

__all__ = ["Marked", "Marking", "Readiness"]

CLOCKS_APART_US_MAX = 5_000_000
"""How far the clock that a tick's time is of may be ahead of this one."""


class Readiness(NamedTuple):
    """What stands by for the next tick."""

    backend: str
    reason: str
    """Why this backend: one line."""
    rows: int
    """Open trades in the book."""


class Marked(NamedTuple):
    """What a tick came to, and the totals that are readable since."""

    marks: Marks
    totals: MarkTotals


class Marking:
    """Keeps a book of the open trades and marks it. Threads share an instance, one at a time."""

    def __init__(
        self,
        open_book: OpenBook,
        prices: Prices,
        write_back: WriteBack,
        backends: Backends,
        now_us: Callable[[], int],
        whole_book: OpenBook | None = None,
    ) -> None:
        """`whole_book` is that of all shards, where `open_book` has those of one device only."""
        self._open_book = open_book
        self._prices = prices
        self._write_back = write_back
        self._backends = backends
        self._now_us = now_us
        # Whoever reads or changes the book holds it: a tick, and the thread that follows in between.
        self._lock = threading.Lock()
        book, lock = (open_book, self._lock) if whole_book is None else (whole_book, threading.Lock())
        self._stress_testing = StressTesting(book, lock, backends)

    def set_prices(self, prices: Mapping[str, object], *, at: object = None) -> int:
        """Store the price that each symbol has had since `at` (now when None), quote per base; how many were.

        One that is older than the stored price of its symbol is not. A time to come counts as now.

        Raises: InvalidTrade naming a wrong symbol, price or time, before anything is stored.
        """
        return self._prices.set_prices(prices, self._now_us() if at is None else parse_time("at", at))

    def mark_to_market(
        self,
        prices: Mapping[str, object] | None = None,
        *,
        at: object = None,
        rows: bool = False,
        write: bool = True,
    ) -> Marks:
        """Mark every open trade at `prices` (the stored ones when None), and keep each user's marks.

        They are not kept without `write`, nor where newer ones stand. Raises: InvalidTrade naming a symbol
        whose price is no positive number.
        """
        tick = self.tick(prices, at=at)
        if write and not self.has_newer(tick.at):
            return self.mark(tick, rows=rows).marks
        with self._lock:
            return self._marks(tick, rows=rows)

    def tick(self, prices: Mapping[str, object] | None = None, *, at: object = None) -> Tick:
        """The tick of `at` (now when None) and of `prices`, or of the stored ones as they are at this moment.

        A time that is further ahead than clocks differ counts as now. Raises: as `mark_to_market`.
        """
        now_us = self._now_us()
        at_us = now_us if at is None else parse_time("at", at)
        if at_us > now_us + CLOCKS_APART_US_MAX:
            at_us = now_us
        if prices is not None:
            return Tick(at=at_us, prices=checked_prices(prices))
        latest = self._prices.latest(at_us)
        return Tick(at=at_us, prices=latest.prices, stale=latest.stale)

    def mark(self, tick: Tick, *, rows: bool = False) -> Marked:
        """Mark every open trade at `tick`, and keep each user's marks. Raises: Unavailable, Corrupt."""
        with self._lock:
            marks = self._marks(tick, rows=rows)
            return Marked(marks, self._write_back.write(marks))

    def has_newer(self, at_us: float) -> bool:
        """Whether marks stand that are newer than `at_us`: older ones must not replace what users read.

        Marks of a time to come are not: whoever's clock made them, they last until the next ones.
        Raises: StoreUnavailable.
        """
        standing_us = self._write_back.time_of_last()
        return standing_us is not None and at_us < standing_us <= self._now_us()

    def stress_test(
        self,
        scenarios: object,
        *,
        prices: Mapping[str, object] | None = None,
        confidence: object = "0.95",
        users: object = (),
    ) -> StressTest:
        """What every open trade would gain or lose in each of `scenarios`; of the whole pool on any device.

        Raises: InvalidTrade naming what is wrong in the question or its prices; as `mark`.
        """
        question = stress_question(scenarios, confidence, users)
        return self._stress_testing.answer(question, self.tick(prices))

    def catch_up(self) -> bool:
        """Take what the pool has changed, so that the next tick need not; whether there was anything.

        Raises: as `mark`.
        """
        with self._lock:
            return self._open_book.catch_up()

    def save_book(self) -> bool:
        """Save the book for the next process; whether there was one to save. See `OpenBook.save`.

        Raises: ResourceUnavailable when the disk is full or the folder cannot be written.
        """
        return self._open_book.save(self._lock)

    def check_book(self) -> BookCheck:
        """Compare the book with the store, while both go on; the report is kept readable too.

        Raises: as `catch_up`; StoreUnavailable also when the server does not stay up for it.
        """
        return check_book(self._open_book, self._lock, self._now_us())

    def rebuild_book(self) -> BookCheck:
        """Build the book from the store, forget the saved one, and compare it; as `check_book`."""
        with self._lock:
            self._open_book.discard()
        return self.check_book()

    def prepare(self) -> Readiness:
        """Choose the backend, have it take the book and its code compiled, so that the next tick need not.

        Marks the book at the stored prices, for nobody. Raises: StoreUnavailable; Misconfigured when the
        setting names a backend that does not work here.
        """
        prices = self._prices.latest(self._now_us()).prices
        with self._lock:
            book = self._open_book.book
            backend = self._backends.for_rows(len(book))
            mark(book, prices, 0, backend=backend)
            return Readiness(backend.name, self._backends.reason, len(book))

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks: `at` (µs) and `by_currency`; empty before the first.

        Raises: InvalidTrade when it is no user's id.
        """
        return self._write_back.get_marks(user_id)

    def get_totals(self) -> dict[str, Any] | None:
        """What the last mark came to, as `MarkTotals` without its symbols; None before the first."""
        return self._write_back.get_totals()

    def get_symbol_marks(self) -> dict[str, Any]:
        """The last mark by symbol: `at` (µs) and `by_symbol`; empty before the first."""
        return self._write_back.get_symbol_marks()

    def _marks(self, tick: Tick, *, rows: bool) -> Marks:
        """With the lock held."""
        self._open_book.catch_up()
        book = self._open_book.book
        backend = self._backends.for_rows(len(book))
        return mark(book, tick.prices, tick.at, backend=backend, rows=rows, stale=tick.stale)
