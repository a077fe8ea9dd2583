"""The tables of a tick are those of its prices, whatever the ticks before it were."""

from __future__ import annotations

import copy
import random
from dataclasses import fields
from decimal import Decimal

import numpy as np
import pytest

from tests.pnl_oracle import position
from tradepool.errors import InvalidTrade
from tradepool.pnl.book import Book
from tradepool.pnl.book.lanes import LOTS_MAX
from tradepool.pnl.tables import Tables, build_tables, lane_ratio, lots_max_wide, usable_prices

PRICES = {f"S{n}/USDT": Decimal(f"{1.7**n:.6g}") for n in range(40)}


def tables_of(book, prices):
    return build_tables(book.lanes, book.fees, prices, book.cost_max)


def from_nothing(book, prices):
    """As if no tick had been before."""
    return build_tables(copy.copy(book.lanes), book.fees, prices, book.cost_max)


def assert_same(got, expected):
    for field in fields(Tables):
        assert np.array_equal(getattr(got, field.name), getattr(expected, field.name)), field.name


@pytest.mark.parametrize("seed", range(5))
def test_tables_do_not_depend_on_the_prices_before(seed):
    rng, prices = random.Random(seed), dict(PRICES)
    book = Book()
    for tick in range(60):
        number = rng.randrange(200)
        size = rng.choice(("1.5", "-2", "1e11", "0.000000000001"))
        row = position(
            f"t{number}", size, symbol=rng.choice(list(PRICES)), fee_rate=rng.choice(("0", "0.001"))
        )
        book.upsert([row], tick)
        book.remove([f"t{rng.randrange(200)}"])
        if rng.random() < 0.1:
            book.compact()
        for symbol in rng.sample(list(PRICES), rng.choice((0, 1, 3, 40))):
            prices[symbol] = PRICES[symbol] * rng.choice((1, 3, Decimal("1e-9"), Decimal("1e15")))
        for symbol in rng.sample(list(PRICES), rng.choice((0, 0, 2))):
            prices.pop(symbol, None)
        assert_same(tables_of(book, prices), from_nothing(book, prices))


def test_a_price_written_with_other_zeros_is_the_same():
    book = Book.from_positions([position("t", "1")])
    first = tables_of(book, {"BTC/USDT": Decimal("64000.50")})
    assert_same(tables_of(book, {"BTC/USDT": Decimal("64000.5")}), first)


def test_a_lane_without_rows_makes_no_tick_wide_or_partial():
    book = Book.from_positions([position("t", "1"), position("whale", "1e15", symbol="ETH/USDT")])
    prices = {"BTC/USDT": Decimal(64000), "ETH/USDT": Decimal(3000)}
    assert tables_of(book, prices).partial
    book.remove(["whale"])
    tables = tables_of(book, prices)
    assert (tables.wide, tables.partial) == (False, False)
    assert tables_of(book, {"BTC/USDT": Decimal(64000)}).partial is False


def test_magnitudes_are_bounded_by_the_largest_rows():
    lots, price = 12_345_678_901, Decimal("64000.12")
    book = Book.from_positions([position("t", str(Decimal(lots).scaleb(-8)), "77")])
    tables = tables_of(book, {"BTC/USDT": price})
    value = int(lots * price)
    assert 2 * value + 77 * 10**8 <= tables.magnitude_max <= 2 * value + 77 * 10**8 + value // 10**9
    # Beyond the limit of the kernels a row counts as if it were at it.
    assert tables_of(book, {"BTC/USDT": Decimal("1e15")}).magnitude_max < 2**63


def test_the_sign_of_a_value_is_that_of_the_side_and_turned_for_inverse_contracts():
    rows = [position("a", "1"), position("b", "-1", symbol="ETH/USD", market="inverse")]
    book = Book.from_positions(rows)
    signs = tables_of(book, {"BTC/USDT": Decimal(2), "ETH/USD": Decimal(2)}).value_signs
    codes = {lane.symbol: 2 * number for number, lane in enumerate(book.lanes.keys)}
    long, inverse = codes["BTC/USDT"], codes["ETH/USD"]
    assert signs[[long, long + 1, inverse, inverse + 1]].tolist() == [1, -1, -1, 1]


def test_limits_never_leave_int64():
    book = Book.from_positions([position("t", "1")])
    assert lots_max_wide(lane_ratio(book.lanes.keys[1], Decimal("1e-9"))) == LOTS_MAX
    for price in ("1e-60", "9e60"):
        assert tables_of(book, {"BTC/USDT": Decimal(price)}).limit.max() <= LOTS_MAX


@pytest.mark.parametrize("price", ["9.99e60", "1e-60", "0.5"])
def test_prices_of_sixty_places_are_usable(price):
    assert usable_prices({"X"}, {"X": Decimal(price)}) == ({"X": Decimal(price)}, ())


@pytest.mark.parametrize("price", [Decimal("1e61"), Decimal("9.9e-61"), Decimal(0), Decimal(-1), 1.5, 1, "1"])
def test_prices_beyond_that_or_of_another_type_are_refused(price):
    with pytest.raises(InvalidTrade, match=r"prices\[X\]"):
        usable_prices({"X"}, {"X": price})
