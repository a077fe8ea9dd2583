"""The backends on the processor, numpy's and numba's: they read the book's own columns."""

from __future__ import annotations

__all__: list[str] = []
