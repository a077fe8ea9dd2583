"""Any history of trades, crashes, restarts, segments and archiving: the book is what the store says is open.

All examples share one pool; each trades for users of its own. After every step the book has caught up, and is
compared row by row, by digests and by its marks with what the store's open trades come to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.loose_trades import entry
from tests.open_books import held, open_book_of
from tests.pnl_oracle import expected_figures, figures
from tests.servers import kill_until_revived
from tradepool import TradePool
from tradepool.errors import Rejected
from tradepool.marking.open_book import OpenBook
from tradepool.marking.positions import position_of
from tradepool.pnl.book import Book
from tradepool.pnl.marks import mark

SHARDS = 4
SEGMENT_BYTES = 1 << 16
RESTARTS_MAX = 1
PRICES = {"BTC/USDT": Decimal("104.5"), "ETH/USDT:USDT": Decimal("9.25"), "BTC/USD:BTC": Decimal(99)}
SYMBOLS = {"BTC/USDT": "margin", "ETH/USDT:USDT": "linear", "BTC/USD:BTC": "inverse"}
AT = 1_750_000_000_000_000

QUICK = settings(max_examples=5, stateful_step_count=20)
LONG = settings(max_examples=60, stateful_step_count=60)

halves = st.integers(1, 8).map(lambda number: f"{number / 2:g}")
prices = st.integers(80, 120).map(str)


class World:
    """The pool under test, and the book of a process that marks it; both may go away and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.examples = count(1)
        self.pool = self._open()
        self.book = open_book_of(self.pool)

    def reopen(self) -> None:
        """A clean end of the pool, and a start."""
        self.pool.close()
        self.pool = self._open()
        self.begin_again()

    def begin_again(self) -> None:
        """Another process marks."""
        self.book = open_book_of(self.pool)

    def finish_the_segment(self) -> None:
        """The next commit begins another one."""
        journal: Any = self.pool._services.journal
        journal._rotate_at = 0

    def _open(self) -> TradePool:
        return TradePool.embedded(self.folder, shard_count=SHARDS, segment_bytes=SEGMENT_BYTES, retention_s=0)


class Histories(RuleBasedStateMachine):
    """One example: a random history of three users."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.trade_ids: list[str] = []
        self.restarts = 0
        self.numbers = count(1)

    @property
    def pool(self) -> TradePool:
        return self.world.pool

    @property
    def book(self) -> OpenBook:
        return self.world.book

    @initialize()
    def users_begin_to_trade(self):
        self.name = f"e{next(self.world.examples)}"

    # What happens to trades. What the pool refuses changes nothing.

    @rule(
        user=st.sampled_from(["ann", "bob", "cy"]),
        symbol=st.sampled_from(sorted(SYMBOLS)),
        side=st.sampled_from(["buy", "sell"]),
        status=st.sampled_from(["pending", "filled", "filled"]),
        amount=halves,
        price=prices,
    )
    def a_trade_is_added(self, user, symbol, side, status, amount, price):
        given = {"symbol": symbol, "market": SYMBOLS[symbol], "side": side, "status": status}
        given |= {"user_id": f"{self.name}-{user}", "amount": amount, "price": price}
        if given["market"] == "inverse":
            given["contract_size"] = "100"
        self.trade_ids.append(self.pool.add_trade(given).trade_id)

    @precondition(lambda self: self.trade_ids)
    @rule(data=st.data(), role=st.sampled_from(["entry", "entry", "exit"]), amount=halves, price=prices)
    def a_fill_is_booked(self, data, role, amount, price):
        fill = entry(f"f{next(self.numbers)}", amount, price) | {"role": role}
        self.tell(self.pool.add_fill, self.some(data), fill)

    @precondition(lambda self: self.trade_ids)
    @rule(data=st.data(), price=prices, amount=st.none() | halves)
    def a_trade_is_closed(self, data, price, amount):
        self.tell(self.pool.close_trade, self.some(data), price, amount=amount, fee="0.1")

    @precondition(lambda self: self.trade_ids)
    @rule(
        data=st.data(),
        change=st.sampled_from(
            [{"stop_loss": "90"}, {"status": "cancelled"}, {"status": "expired"}, {"amount": "9"}]
        ),
    )
    def a_trade_is_updated(self, data, change):
        self.tell(self.pool.update_trade, self.some(data), **change)

    @rule(amount=st.integers(0, 9))
    def balances_are_told(self, amount):
        self.pool.update_available_tokens(f"{self.name}-ann", {"USDT": amount})

    # What happens to the pool, and to whoever marks it.

    @rule()
    def closed_trades_are_archived(self):
        self.pool.archive_closed_trades()

    @rule()
    def a_segment_is_finished(self):
        self.world.finish_the_segment()

    @rule()
    def the_book_is_saved(self):
        assert self.book.save()

    @rule()
    def the_book_starts_from_what_was_saved(self):
        self.world.begin_again()

    @rule()
    def the_book_starts_from_the_store(self):
        self.book._saved.path.unlink(missing_ok=True)
        self.world.begin_again()

    @rule()
    def the_book_is_compacted(self):
        self.book.book.compact()

    @precondition(lambda self: self.restarts < RESTARTS_MAX)
    @rule(how=st.sampled_from(["reopened", "killed"]))
    def the_server_restarts(self, how):
        self.restarts += 1
        if how == "reopened":
            self.world.reopen()
        else:
            kill_until_revived(self.world.pool)

    def some(self, data: Any) -> str:
        return data.draw(st.sampled_from(self.trade_ids))

    def tell(self, call: Any, *given: Any, **named: Any) -> None:
        with contextlib.suppress(Rejected):
            call(*given, **named)

    # What must hold after each step.

    @invariant()
    def the_book_is_what_is_open(self):
        self.book.catch_up()
        trades = [trade for shard in range(SHARDS) for trade in self.pool.store.open_trades(shard)]
        positions = [position for position in map(position_of, trades) if position is not None]
        expected = Book.from_positions(positions)
        assert held(self.book.book) == held(expected)
        assert _digest(self.book.book) == _digest(expected)
        marks = mark(self.book.book, PRICES, AT, rows=True)
        assert figures(marks) == expected_figures(positions, PRICES)


def _digest(book: Book) -> object:
    return book.digests([0] * len(book.groups.keys), 1)


@pytest.fixture(scope="module")
def world(server_binary, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A pool that all examples share."""
    running = World(tmp_path_factory.mktemp("book") / "pool")
    yield running
    running.pool.close()


def agree(world: World, profile: settings) -> None:
    quiet = settings(profile, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Histories(world), settings=quiet)


@pytest.mark.timeout(600)  # Only a failure takes long: its history is made as short as possible.
def test_the_book_follows_any_history(world):
    agree(world, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_book_follows_any_history_for_long(world):
    agree(world, LONG)
