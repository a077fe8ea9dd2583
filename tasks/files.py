"""Tasks of the files worker, which owns the pool's data directory."""

from __future__ import annotations

from typing import Any

from tasks.app import app
from tasks.pool_task import PoolTask

__all__ = ["write_snapshot"]


@app.task(base=PoolTask, name="tasks.files.write_snapshot")
def write_snapshot() -> dict[str, Any]:
    """Write `trades.json` and its sidecar beside the journal."""
    info = app.trade_pool.write_snapshot(app.journal)
    return {"at": info.at, "trades": info.trades.count, "ledgers": info.ledgers.count}
