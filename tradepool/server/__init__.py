"""A private server for pools that bring their own: embedded ones, the demo, the tests."""

from __future__ import annotations

__all__: list[str] = []
