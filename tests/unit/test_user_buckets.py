"""What is read of a user out of the buckets is what the marks have of him, to the last 10⁻⁸."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pnl_oracle import position
from tradepool.errors import Corrupt
from tradepool.marking.bucket_layout import BucketLayout
from tradepool.marking.user_buckets import UserBuckets, user_tallies
from tradepool.model.ids import slot_of_user
from tradepool.pnl.book import Book
from tradepool.pnl.marks import Marks, mark
from tradepool.pnl.position import Position, from_units
from tradepool.pnl.sums import Limbs
from tradepool.pnl.user_marks import UserColumns, UserMark
from tradepool.store.keys import MARK_BUCKETS, Keys

KEYS = Keys(4)
AT = 1_700_000_000_000_000
PRICES = {"A": Decimal("64000.12"), "B": Decimal("0.000012345678"), "C": Decimal(10) ** 9}
HUGE = Decimal(10) ** 30

# Most share one bucket.
CROWD = [f"u{n}" for n in range(2000) if slot_of_user(f"u{n}") % (KEYS.shard_count * MARK_BUCKETS) == 0]
user_ids = st.sampled_from(CROWD) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
amounts = st.one_of(
    st.decimals(-10, 10, places=6, allow_nan=False),
    # Beyond int64 in sum; of so many places that no lot fits; and far beyond 128 bits.
    st.decimals(-(10**9), 10**9, places=3, allow_nan=False),
    st.decimals(-(10**9), 10**9, places=18, allow_nan=False),
    st.sampled_from([HUGE, -HUGE * HUGE]),
)
rows = st.tuples(
    st.integers(0, 9), st.sampled_from(["USDT", "BTC", "₿"]), st.sampled_from([*PRICES, "GONE"]), amounts
)
LIMIT = settings(max_examples=50, deadline=None)


def written(
    layout: BucketLayout, marks: Marks, shards: Iterable[int] = KEYS.shards
) -> dict[int, list[bytes]]:
    columns = marks.users.columns
    layout.follow(columns.groups, len(columns.count))
    return dict(UserBuckets(layout, columns, marks.at, list(shards)))


def read(values: dict[int, list[bytes]], user_id: str) -> dict[str, UserMark]:
    slot = slot_of_user(user_id)
    at, tallies = user_tallies(values[KEYS.shard(slot)][KEYS.mark_bucket(slot)], user_id)
    assert at == AT
    return {currency: UserMark.of(tally) for currency, tally in tallies.items()}


def assert_read_as_marked(values: dict[int, list[bytes]], marks: Marks, user_ids: Iterable[str]) -> None:
    for user_id in user_ids:
        assert read(values, user_id) == {
            currency: figures for (owner, currency), figures in marks.users.items() if owner == user_id
        }


def placed(number: int, row: tuple[int, str, str, Decimal], names: list[str]) -> Position:
    user, currency, symbol, amount = row
    user_id = names[user % len(names)]
    return position(f"t{number}", str(amount), "1.5", user_id=user_id, currency=currency, symbol=symbol)


@LIMIT
@given(names=st.lists(user_ids, min_size=1, max_size=8, unique=True), given_rows=st.lists(rows, max_size=40))
def test_every_user_is_read_as_he_was_marked(names, given_rows):
    book = Book.from_positions(placed(n, row, names) for n, row in enumerate(given_rows))
    marks = mark(book, PRICES, AT)
    assert_read_as_marked(written(BucketLayout(KEYS), marks), marks, [*names, "nobody"])


@LIMIT
@given(
    names=st.lists(user_ids, min_size=1, max_size=8, unique=True),
    batches=st.lists(
        st.tuples(st.lists(rows, max_size=8), st.sets(st.integers(0, 30)), st.booleans()), max_size=5
    ),
)
def test_one_layout_follows_a_book_that_changes(names, batches):
    book, layout, number = Book(), BucketLayout(KEYS), 0
    for given_rows, gone, is_compacted in batches:
        book.upsert([placed(number + n, row, names) for n, row in enumerate(given_rows)], number)
        number += len(given_rows)
        book.remove(f"t{each}" for each in gone)
        if is_compacted:
            book.compact()
        marks = mark(book, PRICES, AT)
        values = written(layout, marks)
        assert_read_as_marked(values, marks, names)
        held = marks.users.columns.count + marks.users.columns.unmarked > 0
        assert layout.users_among(held, {user for user, _ in marks.users.columns.singles}) == len(
            {user for user, _ in marks.users}
        )


EDGES = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61]).flatmap(
    lambda edge: st.sampled_from([edge, -edge, edge - 1])
)


@LIMIT
@given(halves=st.lists(st.tuples(EDGES, EDGES), min_size=1, max_size=3))
def test_a_sum_is_exact_however_its_halves_have_carried(halves):
    high, low = np.array(halves, np.int64).T
    limbs = Limbs(low, high)
    ones = np.ones(len(halves), np.int64)
    columns = UserColumns(
        groups=[(f"u{n}", "USDT") for n in range(len(halves))],
        unrealised=limbs,
        profit=Limbs.zeros(len(halves)),
        exposure=limbs,
        winners=0 * ones,
        count=ones,
        unmarked=0 * ones,
        singles={},
    )
    layout = BucketLayout(KEYS)
    layout.follow(columns.groups, len(halves))
    values = dict(UserBuckets(layout, columns, AT, KEYS.shards))
    for (user_id, _), units in zip(columns.groups, limbs.tolist(), strict=True):
        figures = read(values, user_id)["USDT"]
        assert figures.unrealised == figures.exposure == from_units(units)


@pytest.mark.parametrize("largest", [255, 256, 2**16 - 1, 2**16, 2**32 - 1])
@pytest.mark.parametrize("name", ["count", "unmarked"])
def test_counts_are_as_wide_as_the_largest_of_them_needs(largest, name):
    none, some = np.zeros(2, np.int64), np.array([1, largest])
    counts = {"winners": none, "count": none, "unmarked": none} | {name: some}
    if name == "count":
        counts["winners"] = some
    sums = dict.fromkeys(("unrealised", "profit", "exposure"), Limbs.zeros(2))
    columns = UserColumns(groups=[("ann", "USDT"), ("bob", "USDT")], singles={}, **sums, **counts)
    layout = BucketLayout(KEYS)
    layout.follow(columns.groups, 2)
    values = dict(UserBuckets(layout, columns, AT, KEYS.shards))
    for place, user_id in enumerate(("ann", "bob")):
        figures = read(values, user_id)["USDT"]
        told = [figures.winners, figures.count, figures.unmarked]
        assert told == [counts[each][place] for each in ("winners", "count", "unmarked")]


def test_marks_read_late_are_those_of_their_own_tick():
    book, layout = Book.from_positions([position("t0", "1", symbol="A")]), BucketLayout(KEYS)
    former = mark(book, PRICES, AT)
    book.upsert([position("t1", "1", symbol="A", user_id="bob")], 1)
    newer = written(layout, mark(book, PRICES, AT))
    assert read(newer, "bob") != {}
    assert read(written(layout, former), "bob") == {}
    assert read(written(layout, former), "ann") == read(newer, "ann") != {}


def test_only_the_buckets_of_the_asked_shards_are_made():
    book = Book.from_positions(position(f"t{n}", "1", symbol="A", user_id=f"u{n}") for n in range(200))
    marks = mark(book, PRICES, AT)
    whole = written(BucketLayout(KEYS), marks)
    parts = written(BucketLayout(KEYS), marks, [1, 3])
    assert parts == {shard: whole[shard] for shard in (1, 3)}
    assert {len(values) for values in whole.values()} == {MARK_BUCKETS}


def test_a_value_of_another_format_is_refused():
    with pytest.raises(Corrupt, match="format 9"):
        user_tallies(bytes([9]) + bytes(20), "ann")


@pytest.mark.parametrize("cut", [0, 1, 9, 13, 20, -1])
def test_a_damaged_value_is_refused_by_the_users_name(cut):
    book = Book.from_positions([position("t", "1", symbol="A", user_id="ann")])
    value = next(
        value
        for value in chain(*written(BucketLayout(KEYS), mark(book, PRICES, AT)).values())
        if b"ann" in value
    )
    with pytest.raises(Corrupt, match="marks of user ann"):
        user_tallies(value[:cut], "ann")
    with pytest.raises(Corrupt, match="marks of user ann"):
        user_tallies(value + b"\xff", "ann")
