"""Batch mark-to-market: a book of open positions, marked exactly against a vector of prices."""

from __future__ import annotations

__all__: list[str] = []
