"""How long something takes, as counts by length: cheap enough for the journal's own path."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

__all__ = ["BOUNDS_S", "Latencies", "LatencyCounts"]

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds, seconds: from a fast disk's sync to what nobody should wait for."""


class LatencyCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many took how long since the process that measured them began."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    """Of each of `BOUNDS_S` those that took no longer and longer than the bound before; last the longest."""
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        """Of other bounds, as another release has them, nothing can be told. Raises: ValueError."""
        if len(self.counts) != len(BOUNDS_S) + 1:
            raise ValueError(f"{len(self.counts)} counts of latencies, not {len(BOUNDS_S) + 1}")


class Latencies:
    """Counts what one thread measures; another may read the counts at any time."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one that took `seconds`; a clock that was set back makes it 0."""
        seconds = max(seconds, 0.0)
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count how long the block takes; one that fails is not counted."""
        began_s = time.perf_counter()
        yield
        self.observe(time.perf_counter() - began_s)

    def counts(self) -> LatencyCounts:
        """All so far."""
        return LatencyCounts(counts=tuple(self._counts), sum_s=self._sum_s)
