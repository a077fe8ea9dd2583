"""What a measurement tells: a number, and the number of the same run that it is to be seen against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

__all__ = ["Figure", "percentile_ms", "rate_for", "times_of"]

_MS_PER_S = 1000


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number."""

    what: str
    value: float
    unit: str
    compared_with: str | None = None
    """What of the same run the number is divided by, None where there is nothing to compare."""
    ratio: float | None = None


def rate_for(seconds: float, work: Callable[[], int]) -> float:
    """Things a second that `work` gets done, called for `seconds`; it returns how many it did."""
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not done:
        done += work()
    return done / passed


def times_of(work: Callable[[], object], seconds: float, calls_max: int) -> list[float]:
    """How long each of up to `calls_max` calls within `seconds` took, sorted; one at least."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while not taken or (len(taken) < calls_max and time.perf_counter() < until):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return sorted(taken)


def percentile_ms(taken: Sequence[float], percent: int) -> float:
    """The percentile of sorted times, in milliseconds."""
    return taken[min(len(taken) - 1, len(taken) * percent // 100)] * _MS_PER_S
