"""The domain: trades, money, lifecycle and PnL as pure functions; no I/O, clock or randomness."""

from __future__ import annotations

__all__: list[str] = []
