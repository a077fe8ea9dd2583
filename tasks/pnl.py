"""Tasks on the gpu queue: marking the book. The worker runs one at a time (`-P solo`), on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.app import app
from tasks.pool_task import PoolTask

__all__ = ["mark_to_market"]


@app.task(base=PoolTask, name="tasks.pnl.mark_to_market")
def mark_to_market(prices: Mapping[str, Any] | None = None, at: Any = None) -> dict[str, Any]:
    """Value every open trade at `prices`, or at the stored ones when None; now, or at `at`."""
    marks = app.trade_pool.mark_to_market(prices, at=at)
    return {
        "at": marks.at,
        "backend": marks.backend,
        "totals": dict(marks.totals),
        "missing": list(marks.missing),
    }
