"""How many runs of a message have begun and not ended: its workers died, maybe over it."""

from __future__ import annotations

from tradepool.model.ids import short_id
from tradepool.store.connection import Client
from tradepool.store.keys import Keys
from tradepool.store.translation import translated

__all__ = ["begin_run", "end_run"]


def begin_run(client: Client, task_id: str, kept_ms: int) -> int:
    """Count another run of the message `task_id`; how many there are now that have not ended.

    Forgotten after `kept_ms` without a further one. Raises: StoreUnavailable, Misconfigured, Corrupt.
    """
    key = Keys.unended_runs(short_id(task_id))
    with translated():
        pipeline = client.pipeline(transaction=True)
        pipeline.incr(key)
        pipeline.pexpire(key, kept_ms)
        count, _ = pipeline.execute()
    return int(count)


def end_run(client: Client, task_id: str) -> None:
    """A run of the message has ended: nobody dies over it. Raises: StoreUnavailable, Misconfigured."""
    with translated():
        client.delete(Keys.unended_runs(short_id(task_id)))
