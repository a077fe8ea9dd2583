"""A book against a plain dict, through any order of changes, compactions, files and checks."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.pnl_oracle import expected_figures, figures, position
from tradepool.errors import InvalidTrade
from tradepool.pnl.book import Book
from tradepool.pnl.book.files import dump, load
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.marks import mark

PRICES = {"A/USDT": Decimal("1.5"), "B/USDT": Decimal("0.000000012345"), "C/BTC": Decimal("33.3")}
PARTS = 3

trade_ids = st.one_of(
    st.integers(0, 15).map(lambda number: f"t{number}"), st.sampled_from(["", "ä\ud800", "🙂"])
)
amounts = st.one_of(
    st.decimals(-1000, 1000, places=8).map(str),
    st.sampled_from(["0", "1e22", "-5e11", "0.000000000000000001", "1e30", "1e-19"]),
)
positions = st.builds(
    position,
    trade_ids,
    amounts,
    st.one_of(st.decimals(-1000, 1000, places=9).map(str), st.just("1e15")),
    user_id=st.sampled_from(["ann", "bob", "eve\ud800"]),
    currency=st.sampled_from(["USDT", "USDT", "BTC"]),
    symbol=st.sampled_from([*PRICES, "D/USDT"]),
    market=st.sampled_from(["spot", "inverse"]),
    contract_size=st.sampled_from(["1", "1.0", "0.001"]),
    fee_rate=st.sampled_from(["0", "0.001", "-0.0002", "0.00000001"]),
)


def part_of_user(user_id):
    return len(user_id) % PARTS


def digests(book):
    return book.digests([part_of_user(user_id) for user_id, _ in book.groups.keys], PARTS)


class BookMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.book = Book(compact_rows_min=12)
        self.backend = NumpyBackend(block_rows=7)
        self.positions, self.known = {}, {}

    @rule(batch=st.lists(st.tuples(positions, st.integers(0, 20)), max_size=30))
    def upsert_each_at_its_version(self, batch):
        taken = self.book.upsert([each for each, _ in batch], [version for _, version in batch])
        assert taken == sum(self.take(each, version) for each, version in batch)

    @rule(batch=st.lists(positions, max_size=6), version=st.integers(0, 20))
    def upsert_all_at_one_version(self, batch, version):
        assert self.book.upsert(iter(batch), version) == sum(self.take(each, version) for each in batch)

    @rule(batch=st.lists(positions, max_size=6), version=st.integers(0, 30))
    def upsert_up_to_an_impossible_position(self, batch, version):
        impossible = position("bad", "1", market="futures")
        with pytest.raises(InvalidTrade, match="trade bad"):
            self.book.upsert([*batch, impossible, position("never", "1")], version)
        for each in batch:
            self.take(each, version)
        assert "bad" not in self.book
        assert "never" not in self.book

    @rule(batch=st.lists(trade_ids, max_size=8))
    def remove(self, batch):
        gone = {trade_id for trade_id in batch if self.positions.pop(trade_id, None)}
        assert self.book.remove(batch) == len(gone)

    @rule()
    def compact(self):
        self.book.compact()

    @rule(writable=st.booleans())
    def write_and_read(self, writable):
        data = b"".join(dump(self.book, b"a note"))
        before = self.book
        self.book, note = load(bytearray(data) if writable else data)
        self.book._compact_rows_min = 12
        assert note == b"a note"
        assert digests(self.book) == digests(before)

    @rule()
    def check(self):
        held = self.positions.values()
        assert figures(mark(self.book, PRICES, 0, backend=self.backend, rows=True)) == expected_figures(
            held, PRICES
        )
        assert digests(self.book) == digests(Book.from_positions(reversed(list(held))))

    @invariant()
    def holds_what_the_dict_does(self):
        assert len(self.book) == len(self.positions)
        for trade_id, version in self.known.items():
            is_held = trade_id in self.positions
            assert (trade_id in self.book) == is_held
            assert self.book.version(trade_id) == (version if is_held else None)

    def take(self, each, version):
        if self.known.get(each.trade_id, -1) >= version:
            return False
        self.positions[each.trade_id], self.known[each.trade_id] = each, version
        return True


TestBookMachine = BookMachine.TestCase
TestBookMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


FIELDS = {
    "trade_id": "other",
    "user_id": "bob",
    "currency": "BTC",
    "symbol": "ETH/USDT",
    "market": "inverse",
    "amount": Decimal("1.00000001"),
    "cost": Decimal("0.00000001"),
    "contract_size": Decimal(2),
    "fee_rate": Decimal("0.0001"),
}
"""By field, a value that the position below does not have."""


@pytest.mark.parametrize("amount", ["1", "1e30"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_position_that_differs_in_one_field_has_another_digest(field, amount):
    plain = position("a", amount)
    other = replace(plain, **{field: FIELDS[field]})
    kept = position("z", "3", user_id="zoe")
    assert sums([plain, kept]) != sums([other, kept])
    assert sums([plain, kept]) == sums([kept, plain])


def sums(batch):
    book = Book.from_positions(batch)
    return book.digests([0] * len(book.groups.keys), 1)


def test_a_digest_is_the_same_on_every_machine():
    batch = [
        position("018bcfe5-0000-8000-8000-000000000001", "1.5", "10", fee_rate="0.001"),
        position("ä" * 300, "-2", "0.1", user_id="bob", market="inverse", currency="BTC"),
        position("c", "1e30", "1e20", fee_rate="0.00000001"),
    ]
    assert sums(batch) == [(1063095637169037094, 3)]


def test_a_part_can_be_digested_without_the_others():
    batch = [
        position(trade_id, amount, user_id=user_id)
        for user_id in ("ann", "bob", "cy")
        for trade_id, amount in ((user_id, "1"), (f"{user_id}-longer", "2"), (f"{user_id}-decimal", "1e30"))
    ]
    book = Book.from_positions(batch)
    book.trade_rows.ids.keep(np.arange(len(batch), dtype=np.int32))
    later = position("later", "3", user_id="bob")
    book.upsert([later], 1)
    part_of = [0 if user_id == "bob" else -1 for user_id, _ in book.groups.keys]
    assert book.digests(part_of, 1) == sums([each for each in (*batch, later) if each.user_id == "bob"])


def test_a_row_that_stays_decimal_only_for_want_of_fee_classes_has_the_digest_it_would_have_anyway(
    monkeypatch,
):
    batch = [position("a", "1", fee_rate="0.0001"), position("b", "2", fee_rate="0.0002")]
    expected = sums(batch)
    monkeypatch.setattr("tradepool.pnl.book.lanes._FEE_CLASSES_MAX", 2)
    book = Book.from_positions(batch)
    assert list(book.decimal_rows) == ["b"]
    assert book.digests([0], 1) == expected
