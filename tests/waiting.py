"""Waiting for what another process or thread does, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["eventually"]

_POLL_S = 0.01


def eventually(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Return once `condition` holds; fail when it does not within `timeout_s`."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        pause.wait(_POLL_S)
