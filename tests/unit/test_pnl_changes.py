"""A tick that changes little gives the sums of one that marks every row."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.pnl_oracle import expected_figures, figures, position
from tradepool.pnl.book import Book
from tradepool.pnl.cpu.numba_backend import NumbaBackend
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.marks import mark

AT = 1_700_000_000_000_000
SYMBOLS = [f"S{n}/USDT" for n in range(60)]
INVERSE = {f"S{n}/USDT" for n in range(0, 60, 7)}
FEES = ("0", "0.0004", "-0.00025", "0.001")


def trade(rng, number, *, whales=False):
    symbol = rng.choice(SYMBOLS)
    # One in a hundred needs the wide kernel, one in a hundred a lane of its own, and one of whales neither.
    magnitude = rng.choices((0, 2, 12), (98, 1, whales))[0]
    places = rng.choices((3, 12, 18), (98, 1, 1))[0]
    amount = Decimal(10) ** magnitude * Decimal(str(rng.uniform(-100, 100)))
    return position(
        f"t{number}",
        f"{amount:.{places}f}",
        f"{rng.uniform(-1e4, 1e4):.4f}",
        user_id=f"u{rng.randrange(90)}",
        currency="COIN" if symbol in INVERSE else "USDT",
        symbol=symbol,
        market="inverse" if symbol in INVERSE else "linear",
        fee_rate=rng.choice(FEES),
    )


def some_price(rng):
    return Decimal(f"{10 ** rng.uniform(-3, 4):.5g}")


class Life:
    """A book that bots trade in while prices move, and what is in it."""

    def __init__(self, seed, rows=1500, *, whales=False):
        self.rng = random.Random(seed)
        self.whales = whales
        self.held = {f"t{n}": trade(self.rng, n, whales=whales) for n in range(rows)}
        self.known = rows
        self.version = 1
        self.book = Book(compact_rows_min=self.rng.choice((100, 10**6)))
        self.book.upsert(self.held.values(), 0)
        self.book.compact()
        self.prices = {symbol: some_price(self.rng) for symbol in SYMBOLS[:-3]}

    def put(self, number):
        row = trade(self.rng, number, whales=self.whales)
        if (former := self.held.get(row.trade_id)) and self.rng.random() < 0.7:
            # It stays where it is in the columns, unless it settles in another currency.
            row = replace(row, user_id=former.user_id)
        self.held[row.trade_id] = row
        self.book.upsert([row], self.version)
        self.version += 1

    def go_on(self):
        """Some of: trades come, change and go; prices move, vanish and come; all prices move."""
        rng = self.rng
        for _ in range(rng.choice((0, 0, 1, 9))):
            self.put(self.known)
            self.known += 1
        for trade_id in rng.sample(sorted(self.held), rng.choice((0, 0, 1, 9))):
            self.put(int(trade_id[1:]))
        gone = rng.sample(sorted(self.held), rng.choice((0, 0, 1, 9)))
        self.book.remove(gone)
        for trade_id in gone:
            del self.held[trade_id]
        for symbol in rng.sample(SYMBOLS, rng.choices((0, 1, 2, 60), (3, 4, 4, 1))[0]):
            if rng.random() < 0.1:
                self.prices.pop(symbol, None)
            else:
                self.prices[symbol] = some_price(rng)


def raw(sums):
    limbs = sums.unrealised, sums.profit, sums.exposure, sums.code_value, sums.code_unrealised
    return [each.tolist() for each in limbs] + [sums.winners.tolist()]


def backends():
    return [NumpyBackend(block_rows=64), NumbaBackend(threads=2, thread_rows_min=64)]


def in_full(life):
    backend = NumpyBackend()
    mark(life.book, life.prices, AT, backend=backend)
    return raw(backend.download())


@pytest.mark.parametrize("seed", range(6))
def test_ticks_while_bots_trade_give_the_sums_of_all_rows(seed):
    life, followers, went_on = Life(seed, whales=seed == 5), backends(), 0
    for _ in range(25):
        life.go_on()
        expected = in_full(life)
        for backend in followers:
            mark(life.book, life.prices, AT, backend=backend)
            assert raw(backend.download()) == expected
            went_on += backend.goes_on
    assert life.whales or went_on >= 10
    marks = mark(life.book, life.prices, AT, backend=followers[1])
    oracle = expected_figures(life.held.values(), life.prices)
    assert figures(marks) == oracle | {"rows": {}}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_long_lives_give_the_sums_of_all_rows(seed):
    life, followers = Life(seed, rows=400 + 97 * (seed % 13), whales=seed % 8 == 0), backends()
    for _ in range(120):
        life.go_on()
        expected = in_full(life)
        for backend in followers:
            if life.rng.random() < 0.8:
                mark(life.book, life.prices, AT, backend=backend, rows=life.rng.random() < 0.05)
                assert raw(backend.download()) == expected


def moved(life, symbol="S1/USDT", by="1.01"):
    life.prices = life.prices | {symbol: life.prices[symbol] * Decimal(by)}


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_marks_stay_as_they_were_when_later_ticks_go_on_from_them(backend):
    life = Life(1)
    kept = []
    for _ in range(4):
        moved(life)
        marks = mark(life.book, life.prices, AT, backend=backend)
        kept.append((marks, expected_figures(life.held.values(), life.prices)))
    assert backend.goes_on
    for marks, expected in kept:
        assert figures(marks) == expected | {"rows": {}}


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_arrays_of_sums_that_somebody_holds_are_not_added_to(backend):
    life = Life(1)
    for _ in range(2):
        moved(life)
        mark(life.book, life.prices, AT, backend=backend)
    held = backend.download().unrealised.low[3:]
    before = held.copy()
    moved(life, by="2")
    mark(life.book, life.prices, AT, backend=backend)
    assert backend.goes_on
    assert (held == before).all()


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_one_row_that_changes_often_between_ticks_counts_once(backend):
    life = Life(2)
    mark(life.book, life.prices, AT, backend=backend)
    moved(life)
    mark(life.book, life.prices, AT, backend=backend)
    for _ in range(5):
        life.put(7)
        life.put(life.known)
    moved(life)
    mark(life.book, life.prices, AT, backend=backend)
    assert backend.goes_on
    assert raw(backend.download()) == in_full(life)


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_a_row_that_changes_while_its_price_moves_counts_once(backend):
    life = Life(4)
    for version in range(1, 6):
        mark(life.book, life.prices, AT, backend=backend)
        moved(life)
        row = replace(position("t3", f"{version}.5"), symbol="S1/USDT", user_id="u3")
        life.book.upsert([row], version)
        life.held["t3"] = row
    marks = mark(life.book, life.prices, AT, backend=backend)
    assert backend.goes_on
    assert figures(marks) == expected_figures(life.held.values(), life.prices) | {"rows": {}}


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_a_price_at_which_rows_need_the_wide_kernel_comes_and_goes(backend):
    life = Life(3)
    for by in ("1", "1e6", "1e7", "1e-12", "1e20", "1e-20"):
        moved(life, by=by)
        marks = mark(life.book, life.prices, AT, backend=backend)
        assert figures(marks) == expected_figures(life.held.values(), life.prices) | {"rows": {}}


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_a_position_of_nothing_costs_what_it_cost_once_its_symbol_has_any_price(backend):
    life = Life(6)
    life.held["none"] = position("none", "0", "1.5", symbol="S59/USDT")
    life.book.upsert([life.held["none"]], 1)
    for price in (None, "1e50", None, "2", "1e50"):
        life.prices.pop("S59/USDT", None)
        life.prices |= {"S59/USDT": Decimal(price)} if price else {}
        marks = mark(life.book, life.prices, AT, backend=backend)
        assert figures(marks) == expected_figures(life.held.values(), life.prices) | {"rows": {}}
    assert backend.goes_on


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_sums_that_could_leave_int64_are_made_from_all_rows(backend):
    rows = [position(f"t{n}", str(20 + n % 7), "-3", symbol=SYMBOLS[n % 20]) for n in range(900)]
    book = Book.from_positions(rows)
    prices = dict.fromkeys(SYMBOLS[:20], Decimal("999999999.87654321"))
    for by in ("1", "1.1", "0.0000001", "10000000"):
        prices["S3/USDT"] *= Decimal(by)
        marks = mark(book, prices, AT, backend=backend)
        assert not backend.goes_on
        assert figures(marks) == expected_figures(rows, prices) | {"rows": {}}
