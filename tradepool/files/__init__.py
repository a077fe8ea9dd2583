"""The pool's files: the journal, its checkpoint and the snapshot. Nothing here knows Redis."""

from __future__ import annotations

__all__: list[str] = []
