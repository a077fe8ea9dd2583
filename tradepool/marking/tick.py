"""One moment at which everything is marked: the time, and the prices that hold for it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

__all__ = ["Tick"]


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What a mark is made at; every device that marks a part of the pool is given the same one."""

    at: int
    """µs since 1970."""
    prices: Mapping[str, Decimal]
    """Quote per base, by symbol."""
    stale: Mapping[str, float] = {}
    """Age in seconds of each price that is older than it should be."""
