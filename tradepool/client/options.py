"""The numbers that a client is connected with, checked before anything is opened."""

from __future__ import annotations

import math

from tradepool.errors import Misconfigured, quoted

__all__ = ["checked_count", "checked_time"]


def checked_count(name: str, value: object) -> int:
    """`value` as a number of things. Raises: Misconfigured unless it is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Misconfigured(
            f"{name}: {quoted(value)} is no number of commands; give a whole number from 1 on"
        )
    return value


def checked_time(name: str, value: object, *, may_be_zero: bool) -> float:
    """`value` as a span of time.

    Raises: Misconfigured unless it is finite and above 0, or 0 where it may be.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan  # type: ignore[arg-type]  # it is one
    if math.isfinite(number) and (number > 0 or (number == 0 and may_be_zero)):
        return number
    least = "from 0 on" if may_be_zero else "above 0"
    raise Misconfigured(f"{name}: {quoted(value)} is no span of time; give a finite number {least}")
