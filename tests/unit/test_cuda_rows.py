"""The row function of kernels.cu, built for the processor, is exact in all three arithmetics."""

from __future__ import annotations

import random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cuda_build import emulated_kernels
from tradepool.pnl.book.columns import COST_MAX
from tradepool.pnl.book.lanes import FEE_UNITS_PER_ONE, LOTS_MAX
from tradepool.pnl.cuda.device import Arithmetic
from tradepool.pnl.cuda.tables import pack_entries
from tradepool.pnl.decimal_rows import half_even
from tradepool.pnl.tables import Ratio, lots_max_narrow, lots_max_wide

KINDS = {
    "narrow": (Arithmetic.FLOAT, lots_max_narrow),
    "wide": (Arithmetic.FLOAT, lots_max_wide),
    "whole": (Arithmetic.WHOLE, lots_max_wide),
}
FEES = (0, 1, -1, 4, 7_000, -2_500, 123_457, 5_000_000, FEE_UNITS_PER_ONE, -FEE_UNITS_PER_ONE)
COSTS = (0, 1, -1, 123_456_789, COST_MAX, -COST_MAX)


def entries_of(ratios, fees, arithmetic):
    """An entry for each of `ratios`, and one for each of `fees`."""
    multiplier = np.repeat(np.array([ratio.multiplier for ratio in ratios], np.int64), 2)
    divisor = np.repeat(np.array([ratio.divisor for ratio in ratios], np.int64), 2)
    tables = SimpleNamespace(
        multiplier=multiplier,
        divisor=divisor,
        quotient=np.repeat(np.array([ratio.multiplier / ratio.divisor for ratio in ratios]), 2),
        reciprocal=np.repeat(np.array([1 / ratio.divisor for ratio in ratios]), 2),
        limit=multiplier,
        fee_rate=np.array(fees, np.int64),
        fee_quotient=np.array(fees, np.int64) / FEE_UNITS_PER_ONE,
    )
    entries = pack_entries(tables, arithmetic)
    return entries[: 2 * len(ratios) : 2], entries[2 * len(ratios) :]


def marked(kind, rows):
    """Value and unrealised PnL of rows of (lots, ratio, fee, cost)."""
    lots, ratios, fees, costs = zip(*rows, strict=True)
    entries, fee_entries = entries_of(ratios, fees, KINDS[kind][0])
    values, unrealised = emulated_kernels().mark_rows(
        kind, np.array(lots, np.int64), np.array(costs, np.int64), entries, fee_entries
    )
    return list(zip(values.tolist(), unrealised.tolist(), strict=True))


def exact(rows):
    results = []
    for lots, ratio, fee, cost in rows:
        value = half_even(lots * ratio.multiplier, ratio.divisor)
        results.append((value, value - half_even(abs(value) * fee, FEE_UNITS_PER_ONE) - cost))
    return results


def ratios(rng, count):
    """Ratios of every size that int64 and the guard allow, in lowest terms, as tables have them."""
    yield from (Ratio(1, 1), Ratio(-1, 1), Ratio(1, 2**60), Ratio(2**63 - 1, 1), Ratio(1 - 2**63, 2**60 - 1))
    yield from (Ratio(2**60 - 1, 2**60), Ratio(-(2**60) - 1, 2**60), Ratio(1, 3), Ratio(5**25, 2**60))
    for _ in range(count):
        # Next to a power of two the estimate of a division in integers is furthest off, and corrected twice.
        yield Ratio(rng.randrange(2**40, 2**62) | 1, 2 ** rng.randrange(10, 40))
        yield reduced(rng.randrange(2**40, 2**62), 2 ** rng.randrange(10, 40) + rng.choice((1, 2, 3, 5)))
        top, bottom = int(2 ** rng.uniform(0, 62.9)), int(2 ** rng.uniform(0, 60))
        if rng.random() < 0.3:
            top = 5 ** rng.randrange(27)
        if rng.random() < 0.3:
            bottom = 10 ** rng.randrange(19)
        yield reduced(rng.choice((1, -1)) * top, min(bottom, 2**60))


def reduced(top, bottom):
    price = Fraction(top, bottom)
    return Ratio(price.numerator, price.denominator)


def hard_lots(rng, ratio, limit):
    """The limit itself, and lots whose value is at a half or next to one."""
    yield from {limit, limit - 1, limit // 2, 1, 0} if limit else {0}
    for _ in range(12 if limit else 0):
        value = rng.randrange(max(1, limit * abs(ratio.multiplier) // ratio.divisor))
        nearest = (2 * value + 1) * ratio.divisor // (2 * abs(ratio.multiplier))
        yield from (min(max(nearest + step, 0), limit) for step in (-1, 0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_exact_up_to_the_guard(kind):
    rng = random.Random(11)
    limit_of = KINDS[kind][1]
    rows = [
        (rng.choice((1, -1)) * lots, ratio, rng.choice(FEES), rng.choice(COSTS))
        for ratio in ratios(rng, 100)
        for lots in hard_lots(rng, ratio, limit_of(ratio))
    ]
    assert len(rows) > 5000
    assert marked(kind, rows) == exact(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_fees_on_a_tie_go_to_the_even_neighbour(kind):
    halves = [(lots, Ratio(sign, 2), 0, 0) for lots in range(-9, 10) for sign in (1, -1)]
    fees = [(lots, Ratio(1, 1), fee, 0) for lots in range(-9, 10) for fee in (5_000_000, -5_000_000)]
    large = [(step - 2**50 if kind == "narrow" else step - 2**61, Ratio(1, 2), 0, 0) for step in range(1, 40)]
    rows = halves + fees + large
    assert marked(kind, rows) == exact(rows)
    assert [value for value, _ in marked(kind, [(n, Ratio(1, 2), 0, 0) for n in (1, 3, 5, -1, -3)])] == [
        0,
        2,
        2,
        0,
        -2,
    ]


def test_only_the_narrow_arithmetic_is_wrong_beyond_the_narrow_guard():
    ratio = Ratio(10**9 + 7, 10**9 + 9)
    rows = [(64 * lots_max_narrow(ratio) + step, ratio, 0, 0) for step in range(50)]
    assert marked("narrow", rows) != exact(rows)
    assert marked("wide", rows) == marked("whole", rows) == exact(rows)


def test_the_wide_arithmetic_is_wrong_somewhere_beyond_the_wide_guard():
    ratio = Ratio(2**60 - 1, 2**60)
    rows = [(min(16 * lots_max_wide(ratio), LOTS_MAX) - step, ratio, 0, 0) for step in range(200)]
    assert marked("wide", rows) != exact(rows)


@pytest.mark.parametrize("divisor", [1, 2, 3, 10**7, 10**18, 2**59, 2**60 - 1, 2**60])
def test_a_divisor_is_packed_with_its_reciprocal(divisor):
    entries, _ = entries_of([Ratio(1, divisor)], [0], Arithmetic.WHOLE)
    multiplier, shifted, reciprocal, shift = entries[0].view(np.uint64).tolist()
    assert (multiplier, shifted) == (1, divisor << shift)
    assert 2**63 <= shifted < 2**64
    assert 3 <= shift <= 63
    # The largest number of this shape whose product with the divisor is below 2^128.
    assert (2**64 + reciprocal) * shifted < 2**128 <= (2**64 + reciprocal + 1) * shifted
