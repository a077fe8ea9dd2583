"""The Celery fleet: `celery -A tasks worker -Q trades` and its siblings.

Tasks decode, make one call of the pool, and return. The library `tradepool` never imports this package.
"""

from __future__ import annotations

from tasks.app import app

__all__ = ["app"]
