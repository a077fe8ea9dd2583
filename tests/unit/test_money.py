"""Money is exact: what is taken, what is refused, and the one rounding."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepool.errors import InvalidTokens, InvalidTrade
from tradepool.model.money import (
    CONTEXT,
    ONE,
    ZERO,
    canonical,
    from_units,
    parse_decimal,
    plain,
    quantise,
    round_cost,
    to_units,
)

finite = st.decimals(min_value=-(10**20), max_value=10**20, places=18, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        ("1.50", "1.5"),
        (7, "7"),
        (Decimal("0.1"), "0.1"),
        (0.1, "0.1"),
        (7.8853e-06, "0.0000078853"),
        ("1e3", "1000"),
        ("-0", "0"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("0.1000000000000000000000", "0.1"),
        (999999999999999999999999, "999999999999999999999999"),
        (np.int64(-5), "-5"),
        (np.uint8(7), "7"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.1), "0.1"),
    ],
)
def test_a_number_is_taken_exactly(given_value, text):
    assert plain(parse_decimal("amount", given_value)) == text


def test_a_float_is_rounded_half_even_to_18_places_because_its_digits_beyond_are_noise():
    assert parse_decimal("price", 0.00123456789012345678) == Decimal("0.001234567890123457")
    assert parse_decimal("price", 2.5e-18) == Decimal("2e-18")
    assert parse_decimal("price", 3.5e-18) == Decimal("4e-18")


@pytest.mark.parametrize(
    "junk",
    [
        None,
        True,
        np.bool_(1),
        np.float32("nan"),
        np.longdouble("inf"),
        Fraction(1, 3),
        np.array([1]),
        "",
        "abc",
        "1_000",
        "\u0661",
        "NaN",
        "Infinity",
        float("nan"),
        float("-inf"),
        Decimal("sNaN"),
        "1e24",
        "1e999999999",
        Decimal("1e-999999999"),
        Decimal("1e999999999"),
        10**24,
        10**5000,
        "0.0000000000000000001",
        "9" * 5000,
        [],
        {},
        b"1",
        1j,
        object(),
    ],
    ids=lambda value: type(value).__name__,  # a huge int has no text
)
def test_anything_else_is_refused_by_name(junk):
    with pytest.raises(InvalidTrade) as refusal:
        parse_decimal("price", junk)
    assert refusal.value.field == "price"
    assert refusal.value.cure


def test_the_caller_chooses_the_error():
    with pytest.raises(InvalidTokens):
        parse_decimal("BTC", "much", error=InvalidTokens)


def test_rounding_is_half_to_even_at_the_eighth_place():
    assert quantise(Decimal("0.000000005")) == 0
    assert quantise(Decimal("0.000000015")) == Decimal("0.00000002")
    assert quantise(Decimal("-0.000000025")) == Decimal("-0.00000002")


@given(finite)
def test_canonical_keeps_the_value_and_equal_numbers_get_one_text(x):
    assert canonical(x) == x
    assert str(canonical(x)) == str(canonical(CONTEXT.multiply(x, Decimal("1.000"))))
    assert "E" not in plain(canonical(x))


def test_zero_and_one_are_shared_so_that_records_leave_defaults_out():
    assert canonical(Decimal("-0.000")) is ZERO
    assert parse_decimal("amount", "1.0") is ONE


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_units_and_amounts_convert_back_and_forth(units):
    assert to_units(from_units(units)) == units


@given(finite)
def test_units_are_the_quantised_amount(x):
    assert from_units(to_units(x)) == quantise(x)


def test_the_caller_s_decimal_context_changes_nothing():
    with decimal.localcontext() as narrow:
        narrow.prec = 3
        assert parse_decimal("amount", "123456.789") == Decimal("123456.789")
        assert to_units(Decimal("123456.789")) == 12345678900000
        assert plain(round_cost(Decimal("1.2345"))) == "1.2345"
