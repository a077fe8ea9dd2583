"""Times at the edge: everything a bot or an old file writes, as int µs since 1970 UTC."""

from __future__ import annotations

import decimal
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Integral

from tradepool.errors import InvalidTrade
from tradepool.model.money import CONTEXT

__all__ = ["TIME_US_MAX", "check_time", "iso_time", "moment_of", "parse_time"]

TIME_US_MAX = 253_402_300_799_999_999
"""The last µs of the year 9999."""

_SECONDS_BELOW = 10**11
_MILLISECONDS_BELOW = 10**14
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Shorter runs of digits are ISO dates such as 20250320.
_NUMBER = re.compile(r"[0-9]{9,18}(\.[0-9]{1,18})?")
_CURE = "an ISO 8601 text, a datetime, or seconds, ms or µs since 1970"


def parse_time(field: str, value: object) -> int:
    """`value` in µs since 1970 UTC.

    Numbers below 1e11 are seconds, below 1e14 milliseconds, else microseconds; text is ISO 8601 (or
    such a number); what has no zone is UTC.

    Raises: InvalidTrade for anything else, or a time before 1970 or after 9999.
    """
    try:
        time_us = _microseconds(value)
    except (ValueError, OverflowError, TypeError, decimal.DecimalException) as problem:
        raise InvalidTrade("not a time", field=field, value=value, cure=_CURE) from problem
    return check_time(field, time_us, value)


def check_time(field: str, time_us: int, given: object = None) -> int:
    """`time_us`, read from `given`. Raises: InvalidTrade for a time before 1970 or after 9999."""
    if not 0 <= time_us <= TIME_US_MAX:
        value = time_us if given is None else given
        raise InvalidTrade("out of range", field=field, value=value, cure="between 1970 and 9999")
    return time_us


def iso_time(time_us: int) -> str:
    """`time_us` as ISO 8601 text in UTC."""
    return moment_of(time_us).isoformat()


def moment_of(time_us: int) -> datetime:
    """`time_us`, which `parse_time` reads back from it."""
    return _EPOCH + time_us * _MICROSECOND


def _microseconds(value: object) -> int:
    match value:
        case bool():
            raise TypeError("a bool is no time")
        case int():
            return value * _scale(value)
        case float() | Decimal():
            return _from_number(Decimal(repr(float(value)) if isinstance(value, float) else value))
        case datetime():
            return _from_datetime(value)
        case str() if _NUMBER.fullmatch(value.strip()):
            return _from_number(Decimal(value))
        case str():
            return _from_datetime(datetime.fromisoformat(value.strip()))
        case Integral():
            return int(value) * _scale(int(value))
    raise TypeError("no time")


def _scale(number: int | Decimal) -> int:
    if number < _SECONDS_BELOW:
        return 1_000_000
    return 1000 if number < _MILLISECONDS_BELOW else 1


def _from_number(number: Decimal) -> int:
    if not 0 <= number <= TIME_US_MAX:
        raise ValueError("out of range")
    return int(CONTEXT.multiply(number, Decimal(_scale(number))).to_integral_value(context=CONTEXT))


def _from_datetime(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int((aware - _EPOCH) // _MICROSECOND)
