"""Repairs of what audits find: what is safe to write, from the journal and from the records."""

from __future__ import annotations

__all__: list[str] = []
