"""`tradepool bench`: what this machine makes of a pool, in a folder of its own that is gone afterwards."""

from __future__ import annotations

__all__: list[str] = []
