"""The fleet's app, whose workers fall silent once they are ready: nothing fails; they take no messages."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_ready

from tasks import reliability
from tasks.app import app

__all__ = ["app"]

reliability.CHECK_EVERY_S = 0.1
reliability.QUIET_S = 1.0


@worker_ready.connect
def _fall_silent(sender: Any, **_: Any) -> None:
    sender.task_consumer.cancel()
