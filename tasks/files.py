"""Tasks of the files worker, which owns the pool's data directory."""

from __future__ import annotations

from typing import Any

import msgspec

from tasks.app import app
from tasks.pool_task import PoolTask
from tradepool import wire
from tradepool.errors import PoolLocked
from tradepool.logger import Logger

__all__ = ["archive_closed_trades", "write_snapshot"]

BUSY_PAUSE_S = 0.5
BUSY_TRIES_MAX = 3600
"""Half an hour for a snapshot that is under way."""

log = Logger(__name__)


@app.task(base=PoolTask, name=wire.WRITE_SNAPSHOT, bind=True)
def write_snapshot(self: PoolTask) -> dict[str, Any]:
    """Write `trades.json` and its companions beside the journal.

    Raises: Retry while another one is being written: that began earlier, and may lack what whoever asked for
    this one wants in it.
    """
    try:
        info = app.trade_pool.write_snapshot(app.journal)
    except PoolLocked as other:
        raise self.retry(exc=other, countdown=BUSY_PAUSE_S, max_retries=BUSY_TRIES_MAX) from other
    return {"at": info.at, "trades": info.trades.count, "ledgers": info.ledgers.count}


@app.task(base=PoolTask, name="tasks.files.archive_closed_trades")
def archive_closed_trades() -> dict[str, Any]:
    """Move trades that closed more than `retention_s` ago to the archive beside the journal."""
    report = msgspec.to_builtins(app.trade_pool.archive_closed_trades(app.journal))
    log.info("archived closed trades", **report)
    return dict(report)
