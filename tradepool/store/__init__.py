"""The Redis store: every key, the one commit script, the reads, the fence and the watermark."""

from __future__ import annotations

__all__: list[str] = []
