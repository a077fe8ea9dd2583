"""What a worker's process is set to when it starts."""

from __future__ import annotations

import gc

from celery import signals

from tasks.app import GARBAGE_EVERY, app


def test_a_worker_looks_for_garbage_less_often_than_python_would() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        signals.worker_init.send(sender=app)
        assert gc.get_threshold() == (GARBAGE_EVERY, 10, 10)
    finally:
        gc.set_threshold(*before)
