"""Marks equal the fractions of the oracle to the last 10⁻⁸, whichever way a row takes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from tests.mixed_positions import PRICES, random_positions
from tests.pnl_oracle import expected_figures, figures, position
from tradepool.errors import InvalidTrade
from tradepool.pnl.backend_check import check_sums
from tradepool.pnl.book import Book
from tradepool.pnl.book.lanes import LOTS_MAX, Lane
from tradepool.pnl.cpu.numba_backend import NumbaBackend
from tradepool.pnl.cpu.numba_kernel import add_rows, mark_stretch, revalue_rows
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.cpu.numpy_kernel import Divider, RowRatios
from tradepool.pnl.decimal_rows import half_even
from tradepool.pnl.marks import mark
from tradepool.pnl.tables import Ratio, build_tables, lane_ratio, lots_max_narrow, lots_max_wide

AT = 1_700_000_000_000_000


def assert_exact(positions, prices=PRICES, *, backends=None):
    """The marks of every backend are the oracle's; those of the last one."""
    book = Book.from_positions(positions)
    for backend in backends or (NumpyBackend(), NumbaBackend(threads=2, thread_rows_min=8)):
        marks = mark(book, prices, AT, rows=True, backend=backend)
        assert figures(marks) == expected_figures(positions, prices)
    return marks


@pytest.mark.parametrize(
    ("magnitudes", "places"),
    [((-6, 5), (0, 2, 6, 8)), ((-6, 9), (8, 12, 18)), ((0, 20), (0, 4, 18))],
    ids=["everyday", "fine amounts", "every way at once"],
)
@pytest.mark.parametrize("block_rows", [7, 512, 16384])
def test_random_books_are_exact(magnitudes, places, block_rows):
    rows = list(
        random_positions(600, rng=random.Random(block_rows), users=40, magnitudes=magnitudes, places=places)
    )
    assert_exact(
        rows,
        backends=[NumpyBackend(block_rows=block_rows), NumbaBackend(threads=3, thread_rows_min=block_rows)],
    )


def test_values_and_fees_on_a_tie_go_to_the_even_neighbour():
    price = {"BTC/USDT": Decimal("0.000000005")}
    amounts = [number for number in range(-41, 42) if number]
    rows = [position(f"v{n}", str(n)) for n in amounts]
    rows += [position(f"f{n}", str(2 * n), fee_rate="0.5") for n in amounts]
    marks = assert_exact(rows, price)
    assert marks.rows["v1"] == 0
    assert marks.rows["v3"] == Decimal("0.00000002")
    assert marks.rows["v-5"] == Decimal("-0.00000002")


def test_inverse_ties_go_to_the_even_neighbour():
    prices = {"BTC/USD:BTC": Decimal(200_000_000)}
    rows = [position(f"t{n}", str(n), symbol="BTC/USD:BTC", market="inverse") for n in range(-21, 22)]
    assert_exact(rows, prices)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("price", ["64000.12", "0.000012345678", "3", "1034567890", "0.333333333333333333"])
@pytest.mark.parametrize("exponent", [0, 8, 18])
@pytest.mark.parametrize("inverse", [False, True])
def test_both_sides_of_both_guards_are_exact(sign, price, exponent, inverse):
    lane = Lane("X/USDT", "USDT", inverse, exponent)
    ratio = lane_ratio(lane, Decimal(price))
    for limit in (lots_max_narrow(ratio), lots_max_wide(ratio)):
        for lots in {abs(limit + step) for step in (-1, 0, 1)}:
            # Ending in 1 at this many places, the amount has no coarser lane than the one under test.
            amount = Decimal(sign * lots).scaleb(-exponent)
            market = "inverse" if inverse else "spot"
            row = position("t", str(amount), symbol="X/USDT", market=market, fee_rate="0.0007")
            assert_exact([row], {"X/USDT": Decimal(price)})


def test_the_guard_picks_the_kernel_on_the_lot():
    price = {"BTC/USDT": Decimal("64000.12")}
    ratio = lane_ratio(Lane("BTC/USDT", "USDT", inverse=False, exponent=8), price["BTC/USDT"])

    def flags(lots):
        book = Book.from_positions([position("t", str(Decimal(lots).scaleb(-8)))])
        tables = build_tables(book.lanes, book.fees, price, book.cost_max)
        return tables.wide, tables.partial

    assert flags(lots_max_narrow(ratio)) == (False, False)
    assert flags(lots_max_narrow(ratio) + 1) == (True, False)
    assert flags(lots_max_wide(ratio)) == (True, False)
    assert flags(lots_max_wide(ratio) + 1) == (True, True)


def divided(kernel, quantities, ratio):
    quantity = np.array(quantities, np.int64)
    ratios = RowRatios(
        np.full(len(quantity), ratio.multiplier),
        np.full(len(quantity), ratio.divisor),
        np.full(len(quantity), ratio.multiplier / ratio.divisor),
        1 / ratio.divisor,
    )
    out = np.empty(len(quantity), np.int64)
    getattr(Divider(len(quantity)), kernel)(quantity, ratios, out)
    return out.tolist()


def near_ties(ratio, limit, rng):
    """Quantities whose result is at or next to a half, up to the limit."""
    for _ in range(200):
        result = rng.randrange(max(1, limit * abs(ratio.multiplier) // ratio.divisor))
        nearest = (2 * result + 1) * ratio.divisor // (2 * abs(ratio.multiplier))
        yield from (min(max(nearest + step, 0), limit) for step in (-1, 0, 1))
    yield from (limit, limit - 1, limit // 2, 0, 1)


@pytest.mark.parametrize(("kernel", "limit_of"), [("narrow", lots_max_narrow), ("wide", lots_max_wide)])
def test_a_kernel_divides_exactly_up_to_its_guard(kernel, limit_of):
    rng = random.Random(7)
    for _ in range(150):
        top, bottom = int(10 ** rng.uniform(0, 18.9)), int(10 ** rng.uniform(0, 18))
        price = Fraction(
            rng.choice((top, 5 ** rng.randrange(20))), rng.choice((bottom, 10 ** rng.randrange(18)))
        )
        ratio = Ratio(rng.choice((1, -1)) * price.numerator, price.denominator)
        limit = limit_of(ratio)
        quantities = [rng.choice((1, -1)) * lots for lots in near_ties(ratio, limit, rng)] if limit else [0]
        expected = [half_even(lots * ratio.multiplier, ratio.divisor) for lots in quantities]
        assert divided(kernel, quantities, ratio) == expected


@pytest.mark.parametrize("limit_of", [lots_max_narrow, lots_max_wide])
@pytest.mark.parametrize(
    ("price", "inverse"),
    [
        ("0.5", False),
        ("64000.12", False),
        ("0.000012345678", False),
        ("3333.333333", True),
        ("16000000", True),
    ],
)
def test_every_backend_is_exact_next_to_ties_up_to_both_guards(limit_of, price, inverse):
    ratio = lane_ratio(Lane("X/USDT", "USDT", inverse, 8), Decimal(price))
    rng = random.Random(11)
    lots = [rng.choice((1, -1)) * each for each in near_ties(ratio, limit_of(ratio), rng)]
    fees = ("0.0007", "-0.0002", "0", "0.5")
    market = "inverse" if inverse else "linear"
    rows = [
        position(
            f"t{n}",
            str(Decimal(each).scaleb(-8)),
            symbol="X/USDT",
            market=market,
            fee_rate=fees[n % 4],
            user_id=f"u{n % 7}",
        )
        for n, each in enumerate(lots)
    ]
    assert_exact(rows, {"X/USDT": Decimal(price)})


@pytest.mark.parametrize("count", [1, 7, 8, 9, 511, 512, 513, 1024, 1025, 1537])
def test_books_of_every_length_around_a_block_are_exact(count):
    rows = [
        position(f"t{n}", f"{n % 19 - 9}.25", f"{n % 5}.1", user_id=f"u{n // 300}", fee_rate="0.001")
        for n in range(count)
    ]
    assert_exact(rows, {"BTC/USDT": Decimal("0.0000123")})


def test_a_checked_backend_has_nothing_left_to_compile():
    check_sums(NumbaBackend())
    rows = list(random_positions(300, rng=random.Random(8), users=40, magnitudes=(-3, 3), places=(2, 8)))
    assert_exact(rows)
    for loop in (mark_stretch, add_rows, revalue_rows):
        assert len(loop.signatures) == 1


@pytest.mark.slow
def test_compiled_code_is_kept_where_numba_cache_dir_says(tmp_path):
    program = "from tradepool.pnl.backend import Backends; Backends('numba').for_rows(1)"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert {each.name.rpartition("_")[0] for each in tmp_path.rglob("*.nbi")} >= {
        "numba_kernel.mark_stretch",
        "numba_kernel.add_rows",
        "numba_kernel.revalue_rows",
    }


def test_the_narrow_kernel_is_wrong_beyond_its_guard():
    ratio = Ratio(10**9 + 7, 10**9 + 9)
    beyond = [8 * lots_max_narrow(ratio) + step for step in range(50)]
    exact = [half_even(lots * ratio.multiplier, ratio.divisor) for lots in beyond]
    assert divided("narrow", beyond, ratio) != exact
    assert divided("wide", beyond, ratio) == exact


def test_ratios_that_no_int64_holds_leave_no_lots_to_the_kernels():
    for ratio in (Ratio(2**63, 1), Ratio(1, 2**60 + 1)):
        assert lots_max_narrow(ratio) == lots_max_wide(ratio) == 0
    assert lots_max_wide(Ratio(1, 10)) == LOTS_MAX
    assert_exact([position("t", "1")], {"BTC/USDT": Decimal("1e23")})
    assert_exact([position("t", "1"), position("z", "0", "1.5")], {"BTC/USDT": Decimal("1e-23") / 7})


def test_eighteen_decimals_next_to_a_whale_in_one_symbol():
    rows = [
        position("dust", "0.000000000000000001"),
        position("fine", "1.234567890123456789", "79012.34"),
        position("whole", "12345678"),
        position("whale", "-1000000000000000000000", "-64"),
        position("both", "1000000000000.000000000000000001"),
    ]
    marks = assert_exact(rows)
    assert marks.symbols["BTC/USDT", "USDT"].count == 5


def test_a_trillion_of_notional_is_exact():
    rows = [position("t", "15624970.90308276", "999999999999.99999999", fee_rate="0.001")]
    marks = assert_exact(rows, {"BTC/USDT": Decimal("64000.12")})
    assert marks.users["ann", "USDT"].exposure > 10**12


def test_costs_at_the_edge_of_int64_are_exact():
    edges = [2**62 - 1, 2**62, 2**63 - 1, 2**63, 10**30]
    values = [1, 20_000_000_000, -20_000_000_000]
    signed = [sign * Decimal(units).scaleb(-8) for units in edges for sign in (1, -1)]
    for value in values:
        for cost in signed:
            assert_exact([position("t", str(value), str(cost), fee_rate="1")], {"BTC/USDT": Decimal(1)})


@pytest.mark.parametrize("sign", [1, -1])
def test_costs_that_overflow_together_are_exact(sign):
    cost = str(sign * Decimal(2**61).scaleb(-8))
    late = Book.from_positions([position("t0", "1")])
    late.upsert([position(f"t{n}", "1", cost) for n in range(20)], 1)
    rows = [position(f"t{n}", "1", cost) for n in range(20)]
    assert figures(mark(late, PRICES, AT, rows=True)) == expected_figures(rows, PRICES)
    assert_exact(rows)


def test_costs_beyond_eight_decimals_count_at_eight_half_even():
    rows = [
        position("a", "1", "0.000000005"),
        position("b", "1", "0.000000015"),
        position("c", "1", "-0.000000005"),
    ]
    marks = assert_exact(rows, {"BTC/USDT": Decimal(1)})
    assert [marks.rows[trade_id] for trade_id in "abc"] == [1, Decimal("0.99999998"), 1]


def test_totals_beyond_int64_are_exact_from_small_rows():
    rows = [position(f"t{n}", "1.5", "0.1", user_id=f"u{n % 3}", fee_rate="0.0001") for n in range(9000)]
    marks = assert_exact(rows, {"BTC/USDT": Decimal(7_499_999)})
    assert marks.totals["USDT"] * 10**8 > 2**63


def test_totals_beyond_int64_are_exact_from_rows_that_overflow_within_a_block():
    rows = [position(f"t{n}", str(20 + n % 7), "-3", user_id=f"u{n % 2}") for n in range(900)]
    rows += [position(f"s{n}", "-21", "40000000000", user_id="u1") for n in range(50)]
    marks = assert_exact(rows, {"BTC/USDT": Decimal("999999999.87654321")})
    assert marks.totals["USDT"] * 10**8 > 2**63


def test_totals_beyond_int64_are_exact_from_rows_that_came_one_by_one():
    rows = [position(f"t{n}", "20", "-3", user_id=f"u{n % 10}") for n in range(60)]
    price = {"BTC/USDT": Decimal("999999999.87654321")}
    book = Book.from_positions(rows[:10])
    book.upsert(rows[10:], 1)
    for backend in (NumpyBackend(), NumbaBackend()):
        for _ in range(2):
            marks = mark(book, price, AT, rows=True, backend=backend)
            assert figures(marks) == expected_figures(rows, price)
            assert marks.users["u3", "USDT"].unrealised * 10**8 > 2**63


def test_rebates_add_to_the_pnl():
    marks = assert_exact([position("t", "-2", "-200", fee_rate="-0.0005")], {"BTC/USDT": Decimal(100)})
    assert marks.totals == {"USDT": Decimal("0.1")}


def test_an_inverse_short_gains_base_coin_when_the_price_falls():
    row = position(
        "t", "-10", "0.02", currency="BTC", symbol="BTC/USD:BTC", market="inverse", contract_size="100"
    )
    marks = assert_exact([row], {"BTC/USD:BTC": Decimal(40000)})
    assert marks.totals == {"BTC": Decimal("0.005")}
    assert marks.symbols["BTC/USD:BTC", "BTC"].short_value == Decimal("-0.025")
    assert marks.symbols["BTC/USD:BTC", "BTC"].long_value == 0


def test_currencies_are_never_added():
    rows = [position("a", "1"), position("b", "1", currency="EUR")]
    marks = assert_exact(rows, {"BTC/USDT": Decimal(10)})
    assert marks.totals == {"USDT": 10, "EUR": 10}
    assert set(marks.symbols) == {("BTC/USDT", "USDT"), ("BTC/USDT", "EUR")}


def test_an_empty_book_has_no_figures():
    marks = mark(Book(), {}, AT)
    assert (marks.at, marks.backend) == (AT, "numpy")
    assert (dict(marks.users), dict(marks.symbols), dict(marks.totals), marks.missing) == ({}, {}, {}, ())
    assert marks.rows is None


def test_positions_without_a_price_are_named_and_not_counted():
    rows = list(random_positions(800, rng=random.Random(3), users=40, magnitudes=(-6, 20), places=(0, 8, 18)))
    rows += [position("only", "1", "5", user_id="lonely", symbol="GONE/USDT")]
    some = {symbol: PRICES[symbol] for symbol in ("BTC/USDT", "BTC/USD:BTC")}
    marks = assert_exact(rows, some)
    assert "GONE/USDT" in marks.missing
    assert (marks.users["lonely", "USDT"].count, marks.users["lonely", "USDT"].unmarked) == (0, 1)


def test_a_symbol_that_nobody_holds_any_more_needs_no_price():
    book = Book.from_positions([position("a", "1"), position("b", "1", symbol="OLD/USDT")])
    book.remove(["b"])
    assert mark(book, {"BTC/USDT": Decimal(1)}, AT).missing == ()


@pytest.mark.parametrize("price", ["0", "-1", "NaN", "sNaN", "Infinity", "1e70"])
@pytest.mark.parametrize("amount", ["1", "1e40"])
def test_a_bad_price_is_refused_by_its_symbol(price, amount):
    book = Book.from_positions([position("t", amount)])
    with pytest.raises(InvalidTrade, match=r"BTC/USDT"):
        mark(book, {"BTC/USDT": Decimal(price)}, AT)


def test_marks_stay_as_they_were_when_the_book_moves_on():
    rows = list(random_positions(200, rng=random.Random(5), users=40, magnitudes=(-3, 12), places=(2, 18)))
    book, backend = Book.from_positions(rows), NumpyBackend()
    marks = mark(book, PRICES, AT, backend=backend, rows=True)
    book.upsert([position("late", "5", user_id="late")], 1)
    book.remove([row.trade_id for row in rows[:150]])
    book.compact()
    mark(book, PRICES, AT, backend=backend)
    assert figures(marks) == expected_figures(rows, PRICES)
