"""One Celery task per trade: as its first steps say, and as an expert would set it up for speed.

celery -A bench.peer_tasks.celery_app worker
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery

from bench.peer_tasks import records

__all__ = ["app", "enqueue"]

PREFETCH = 64

app = Celery("peer", broker=records.URL, set_as_current=False)
if records.IS_TUNED:
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=PREFETCH,
        worker_disable_rate_limits=True,
        task_acks_late=False,
    )


@app.task(name="write")  # type: ignore[untyped-decorator]  # Celery ships no types
def write(trade: dict[str, Any]) -> None:
    """Write the record of one trade."""
    (records.grouped if records.IS_TUNED else records.synced)(trade)


def enqueue(trades: Sequence[dict[str, Any]]) -> None:
    """One message for each; tuned, the messages are published in pipelines."""
    if not records.IS_TUNED:
        for trade in trades:
            write.delay(trade)
        return
    with (
        app.connection_for_write() as connection,
        app.amqp.Producer(connection) as producer,
        producer.batch(),
    ):
        for trade in trades:
            write.apply_async((trade,), producer=producer)
