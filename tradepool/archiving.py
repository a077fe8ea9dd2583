"""Moving closed trades from the store to the archive, once they are older than the retention."""

from __future__ import annotations

__all__: list[str] = []
