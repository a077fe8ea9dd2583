"""Running the parts: the embedded server, the supervisor, health."""

from __future__ import annotations

__all__: list[str] = []
