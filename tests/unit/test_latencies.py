"""Counts of how long something took."""

from __future__ import annotations

import pytest

from tradepool.latencies import BOUNDS_S, Latencies


def test_each_is_counted_once_where_it_belongs():
    latencies = Latencies()
    for seconds in (0.0, BOUNDS_S[0], 0.0011, 10.0, 99.0, -5.0):
        latencies.observe(seconds)
    counts = latencies.counts()
    assert counts.counts == (3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
    assert counts.sum_s == pytest.approx(109.0016, abs=1e-9)


def test_what_fails_is_not_counted():
    latencies = Latencies()

    def fail() -> None:
        raise OSError

    with pytest.raises(OSError), latencies.measured():  # noqa: PT011 - the one that is raised here
        fail()
    with latencies.measured():
        pass
    assert sum(latencies.counts().counts) == 1
