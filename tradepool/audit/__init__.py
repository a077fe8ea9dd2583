"""Audits: proof that store, journal and model agree (the old check_all_trades and check_trades)."""

from __future__ import annotations

__all__: list[str] = []
