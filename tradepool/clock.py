"""The wall clock, in the unit that every record uses."""

from __future__ import annotations

import time

__all__ = ["now_us"]


def now_us() -> int:
    """µs since 1970 UTC."""
    return time.time_ns() // 1000
