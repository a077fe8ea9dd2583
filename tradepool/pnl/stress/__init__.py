"""Stress tests of a book: its net positions valued in scenarios, and what that says about risk."""

from __future__ import annotations

__all__: list[str] = []
