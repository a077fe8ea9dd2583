"""A Celery app as anybody would write it: kombu as it comes, late acknowledgement, one short task."""

from __future__ import annotations

import threading

from celery import Celery

from tradepool.settings import load_settings
from tradepool.store.address import broker_address

__all__ = ["NAP", "QUEUE", "app", "nap"]

QUEUE = "naps"
NAP = "plain.nap"
NAP_S = 0.05

app = Celery("plain", broker=broker_address(load_settings()).celery_url, set_as_current=False)
app.conf.update(task_acks_late=True, worker_redirect_stdouts=False, broker_connection_retry_on_startup=True)


@app.task(name=NAP)
def nap() -> None:
    """Take about as long as a commit."""
    threading.Event().wait(NAP_S)
