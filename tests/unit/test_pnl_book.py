"""A book with a history gives the marks of a fresh one with the same positions."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pnl_oracle import expected_figures, figures, position
from tests.trade_builders import new_trade
from tradepool.errors import InvalidTrade
from tradepool.marking.positions import position_of
from tradepool.pnl.book import Book
from tradepool.pnl.book.columns import Columns
from tradepool.pnl.cpu.numba_backend import NumbaBackend
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.marks import mark

PRICES = {"A/USDT": Decimal("1.5"), "B/USDT": Decimal("0.000000012345"), "C/BTC": Decimal("33.3")}


class CopyingBackend(NumpyBackend):
    """A backend that, like one on a device, sees the book only through `upload` and `apply`."""

    name = "copying"

    def upload(self, columns):
        self.generation = columns.generation
        self._mirror, self._touched = Columns(), 0
        self.apply(columns)

    def apply(self, columns):
        appended = np.arange(self._mirror.size, columns.size)
        self._mirror.append(columns.rows(appended), appended, appended)
        touched = np.array(columns.touched[self._touched :], np.intp)
        self._mirror._write(touched, columns.rows(touched), touched)
        self._touched = len(columns.touched)

    def mark(self, tables, *, groups, rows):
        inner = NumpyBackend(block_rows=16)
        inner.upload(self._mirror)
        inner.mark(tables, groups=groups, rows=rows)
        self._sums = inner.download()


trade_ids = st.integers(0, 11).map(lambda number: f"t{number}")
amounts = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.decimals(-1000, 1000, places=8).map(str),
    st.sampled_from(
        ["0.000000000000000001", "1e22", "-5e11", "123456789.1234", "1000000000.000000000000000001"]
    ),
)
positions = st.builds(
    position,
    trade_ids,
    amounts,
    st.one_of(st.decimals(-1000, 1000, places=9).map(str), st.just("1e15")),
    user_id=st.sampled_from(["ann", "ann", "ann", "bob"]),
    currency=st.sampled_from(["USDT", "USDT", "USDT", "BTC"]),
    symbol=st.sampled_from([*PRICES, "D/USDT"]),
    market=st.sampled_from(["spot", "margin", "linear", "inverse"]),
    fee_rate=st.sampled_from(["0", "0.001", "-0.0002", "0.00000001"]),
)
steps = st.one_of(
    st.tuples(st.just("upsert"), st.lists(positions, max_size=12), st.integers(0, 20)),
    st.tuples(st.just("remove"), st.lists(trade_ids, max_size=4)),
    st.tuples(st.just("compact")),
    st.tuples(st.just("mark")),
)


class Ledger:
    """What a book must hold, in a dict."""

    def __init__(self):
        self.positions, self.versions = {}, {}

    def upsert(self, batch, version):
        for each in batch:
            if self.versions.get(each.trade_id, -1) < version:
                self.positions[each.trade_id], self.versions[each.trade_id] = each, version

    def remove(self, trade_ids):
        for trade_id in trade_ids:
            self.positions.pop(trade_id, None)


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, max_size=25))
def test_any_history_equals_a_fresh_book(history):
    book, ledger = Book(compact_rows_min=8), Ledger()
    backends = [NumpyBackend(block_rows=5), CopyingBackend(), NumbaBackend(threads=2, thread_rows_min=3)]
    for name, *arguments in [*history, ("mark",)]:
        if name == "mark":
            expected = expected_figures(ledger.positions.values(), PRICES)
            fresh = Book.from_positions(ledger.positions.values())
            assert figures(mark(fresh, PRICES, 0, rows=True)) == expected
            for backend in backends:
                assert figures(mark(book, PRICES, 0, backend=backend, rows=True)) == expected
        else:
            getattr(book, name)(*arguments)
            if name != "compact":
                getattr(ledger, name)(*arguments)
        assert len(book) == len(ledger.positions)
        assert all(trade_id in book for trade_id in ledger.positions)


def test_a_redelivered_batch_changes_nothing():
    book = Book()
    batch = [position("a", "1"), position("b", "2")]
    assert book.upsert(batch, 5) == 2
    generation, touched = book.columns.generation, list(book.columns.touched)
    assert book.upsert(batch, 5) == 0
    assert book.upsert([position("a", "9")], 4) == 0
    assert book.columns.size == 2
    assert book.columns.generation is generation
    assert book.columns.touched == touched


def test_a_removed_trade_comes_back_with_a_later_version_only():
    book = Book()
    book.upsert([position("a", "1")], 5)
    assert book.remove(["a", "a", "never"]) == 1
    assert book.upsert([position("a", "1")], 5) == 0
    assert "a" not in book
    assert book.upsert([position("a", "1")], 6) == 1
    assert "a" in book


def test_only_so_many_removals_are_remembered(monkeypatch):
    monkeypatch.setattr("tradepool.pnl.book.book._REMOVED_REMEMBERED_MAX", 3)
    book = Book()
    book.upsert([position(f"t{n}", "1") for n in range(10)], 1)
    book.remove([f"t{n}" for n in range(10)])
    assert len(book.removed) == 3
    assert book.upsert([position("t9", "1")], 1) == 0


def test_a_changed_position_keeps_its_row():
    book = Book.from_positions([position("a", "1"), position("b", "2", user_id="bob")])
    book.upsert([position("a", "-0.5", symbol="ETH/USDT")], 1)
    assert (book.columns.size, book.columns.stale) == (2, 0)
    assert len(book.columns.touched) == 1
    marks = mark(book, {"BTC/USDT": Decimal(2), "ETH/USDT": Decimal(3)}, 0)
    assert marks.users["ann", "USDT"].count == 1
    assert {symbol: each.count for (symbol, _), each in marks.symbols.items()} == {
        "BTC/USDT": 1,
        "ETH/USDT": 1,
    }


def test_the_same_figures_again_touch_nothing():
    book = Book.from_positions([position("a", "1.50")])
    assert book.upsert([position("a", "1.5")], 7) == 1
    assert book.columns.touched == []
    assert book.upsert([position("a", "9")], 7) == 0


def test_a_tenth_of_stale_rows_makes_the_book_compact_itself():
    book = Book(compact_rows_min=100)
    book.upsert((position(f"t{n}", "1", user_id=f"u{n % 7}") for n in range(3000)), 0)
    generation = book.columns.generation
    assert book.columns.stale == 0
    book.remove([f"t{n}" for n in range(300)])
    assert book.columns.dead == 300
    book.upsert([position("new", "1")], 1)
    assert (book.columns.size, book.columns.stale) == (2701, 0)
    assert book.columns.generation is not generation


def test_many_changes_in_place_start_a_new_generation_instead_of_an_endless_list():
    book = Book.from_positions([position(f"t{n}", "1") for n in range(4097)])
    generation = book.columns.generation
    book.upsert([position(f"t{n}", "2") for n in range(4096)], 1)
    assert book.columns.generation is generation
    assert len(book.columns.touched) == len(book.columns.former) == 4096
    book.upsert([position("t4096", "2")], 1)
    assert book.columns.generation is not generation
    assert (book.columns.touched, book.columns.former) == ([], [])


def test_a_trade_that_is_twice_in_a_batch_is_placed_twice():
    book = Book()
    batch = [position("a", "1"), position("b", "1"), position("a", "2"), position("a", "3")]
    assert book.upsert(batch, [1, 1, 2, 2]) == 3
    assert (len(book), book.version("a")) == (2, 2)
    assert book.decimal_row(0).figures.quantity == 2
    with pytest.raises(ValueError, match="iterator too short"):
        book.upsert(batch, [1])


def test_ids_of_one_hash_are_kept_apart(monkeypatch):
    monkeypatch.setattr("tradepool.pnl.book.trade_ids.crc32", len)
    book = Book.from_positions([position(f"t{n}", str(n), user_id=f"u{n % 3}") for n in range(10, 60)])
    assert book.remove(["t10", "t59", "t9", "t60"]) == 2
    assert [book.version(f"t{n}") for n in (9, 10, 11, 58, 59, 60)] == [None, None, 0, 0, None, None]
    quantities = {
        book.decimal_row(row).figures.quantity for row in np.flatnonzero(book.columns.code).tolist()
    }
    assert quantities == set(range(11, 59))


def test_trades_that_left_make_room_for_others(monkeypatch):
    monkeypatch.setattr("tradepool.pnl.book.trade_rows._GONE_MIN", 10)
    monkeypatch.setattr("tradepool.pnl.book.trade_ids._BLOCK_IDS", 7)
    book = Book()
    for day in range(20):
        trade_ids = [f"day {day}, trade {n} {'ä' * n}" for n in range(30)]
        book.upsert([position(each, str(n + 1)) for n, each in enumerate(trade_ids)], day)
        assert [book.version(each) for each in trade_ids] == [day] * 30
        assert book.remove(trade_ids[:-1]) == 29
        book.compact()
        assert len(book) == day + 1
        left = [f"day {each}, trade 29 {'ä' * 29}" for each in range(day + 1)]
        assert book.trade_ids(np.arange(day + 1)) == left
        assert [book.version(each) for each in left] == list(range(day + 1))
    assert len(book.trade_rows.ids) <= 2 * 20 + 30


def test_users_and_symbols_without_positions_are_forgotten():
    book = Book.from_positions([position(f"t{n}", "1", user_id=f"u{n}", symbol=f"S{n}") for n in range(50)])
    book.remove([f"t{n}" for n in range(1, 50)])
    book.compact()
    assert book.groups.keys == [("u0", "USDT")]
    assert len(book.lanes.keys) == 2
    assert book.symbols() == {"S0"}


def test_a_position_may_move_between_the_columns_and_the_single_rows():
    book = Book.from_positions([position("a", "1")])
    for version, amount in enumerate(["1e30", "2", "1e-19", "3"], start=1):
        book.upsert([position("a", amount)], version)
        assert len(book) == 1
        assert ("a" in book.decimal_rows) == (amount in {"1e30", "1e-19"})
        assert figures(mark(book, {"BTC/USDT": Decimal(7)}, 0, rows=True)) == expected_figures(
            [position("a", amount)], {"BTC/USDT": Decimal(7)}
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("market", "futures"),
        ("amount", Decimal("NaN")),
        ("amount", Decimal("1e61")),
        ("cost", Decimal("Infinity")),
        ("cost", 1.5),
        ("contract_size", Decimal(0)),
        ("contract_size", Decimal(-1)),
        ("fee_rate", Decimal("-1e-61")),
    ],
)
def test_impossible_figures_are_refused_by_trade_and_field(field, value):
    good = position("good", "1")
    fields = {name: getattr(good, name) for name in good.__slots__} | {"trade_id": "bad", field: value}
    book = Book()
    with pytest.raises(InvalidTrade, match=rf"{field}: trade bad"):
        book.upsert([good, SimpleNamespace(**fields)], 1)
    assert "good" in book
    assert "bad" not in book


def test_a_short_of_more_digits_than_a_plain_decimal_keeps_is_entered_whole():
    amount = Decimal("123456789012345.123456789012345678")
    short = new_trade(
        side="sell", direction="short", market="margin", amount=amount, price=1, status="filled"
    )
    entered = position_of(short)
    assert (entered.amount, entered.cost) == (amount.copy_negate(), amount.copy_negate())
