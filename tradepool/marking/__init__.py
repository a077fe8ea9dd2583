"""Marks: what the open trades are worth at a set of prices, exact, with the latest ones kept readable.

One tick: `open_book` catches up with the pool, `prices` says at what, `tradepool.pnl` marks, `write_back`
makes the marks readable; `service` puts them together.
"""

from __future__ import annotations

from tradepool.marking.service import Marking

__all__ = ["Marking"]
