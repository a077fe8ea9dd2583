"""What an error shows of a caller's value."""

from __future__ import annotations

import pytest

from tradepool.errors import InvalidTrade, quoted


def test_a_long_value_keeps_both_ends():
    path = f"{'exports/' * 20}my_trades.json"
    assert quoted(path).startswith("exports/exports/")
    assert quoted(path).endswith("/my_trades.json")
    assert len(quoted(path)) == len(quoted("x" * 81)) == 80


@pytest.mark.parametrize("value", ["", "x" * 80, "…" * 80, 10**70])
def test_a_value_that_fits_is_shown_whole(value):
    assert quoted(value) == str(value)


@pytest.mark.parametrize(
    "value",
    ["\ud800" * 100, 10**5000, ["x" * 1000] * 1000, "a\n" * 100],
    ids=["surrogates", "huge", "deep", "lines"],
)
def test_any_value_makes_one_short_line(value):
    line = str(InvalidTrade("not text", field="symbol", value=value, cure="give text"))
    line.encode()
    assert len(line) < 130
    assert "\n" not in line
