"""Every kind of time that bots and old files write becomes one kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest

from tradepool.errors import InvalidTrade
from tradepool.model.times import iso_time, parse_time

MARCH_US = 1_742_428_800_000_000


@pytest.mark.parametrize(
    "same_moment",
    [
        "2025-03-20T00:00:00+00:00",
        "2025-03-20 00:00:00+00:00",
        "2025-03-20T00:00:00Z",
        "2025-03-20T00:00:00",
        "2025-03-20T02:00:00+02:00",
        "2025-03-20",
        "20250320",
        1_742_428_800,
        1_742_428_800.0,
        1_742_428_800_000,
        1_742_428_800_000_000,
        np.int64(1_742_428_800_000),
        "1742428800",
        "1742428800000",
        Decimal("1742428800.0"),
        datetime(2025, 3, 20, tzinfo=UTC),
        datetime(2025, 3, 20),  # noqa: DTZ001 - what has no zone is UTC
        datetime(2025, 3, 20, 9, tzinfo=timezone(timedelta(hours=9))),
    ],
)
def test_the_same_moment_however_written(same_moment):
    assert parse_time("timestamp", same_moment) == MARCH_US


def test_small_floats_are_seconds_as_old_files_have_them():
    assert parse_time("timestamp", 794916.035) == 794_916_035_000


def test_the_size_of_a_number_tells_its_unit():
    assert parse_time("at", 10**11 - 1) == (10**11 - 1) * 10**6
    assert parse_time("at", 10**11) == 10**11 * 1000
    assert parse_time("at", 10**14 - 1) == (10**14 - 1) * 1000
    assert parse_time("at", 10**14) == 10**14


def test_microseconds_of_a_float_survive():
    assert parse_time("timestamp", 1742428800.123457) == MARCH_US + 123_457


def test_thirteen_digits_of_text_are_milliseconds_and_no_date_of_the_year_1612():
    assert parse_time("timestamp", "1612010480123") == 1_612_010_480_123_000


@pytest.mark.parametrize(
    "junk",
    [
        None,
        True,
        "",
        "yesterday",
        "2025-13-01",
        -1,
        float("nan"),
        float("inf"),
        10**5000,
        1_742_428_800_000_000_000,
        "1742428800000000000",
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        [],
        object(),
        Decimal("NaN"),
        Decimal("1e400"),
    ],
    ids=lambda value: type(value).__name__,  # a huge int has no text
)
def test_what_is_no_time_is_refused_by_name(junk):
    with pytest.raises(InvalidTrade) as refusal:
        parse_time("at", junk)
    assert refusal.value.field == "at"


def test_a_time_prints_as_iso():
    assert iso_time(MARCH_US + 1) == "2025-03-20T00:00:00.000001+00:00"
