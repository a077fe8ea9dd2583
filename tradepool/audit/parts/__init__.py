"""An audit in parts: stages of work that one process does in turn, or the workers of a fleet share."""

from __future__ import annotations

__all__: list[str] = []
