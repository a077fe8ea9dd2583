"""The bot of a contender: a process of its own that enqueues trades and waits until all are on disk.

    python -m bench.peer_tasks.produce APP

Reads `FIRST COUNT` lines from stdin; answers `ready` when the trades are made, and after another line, with
which the clock starts, the seconds that it took.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
import time
from pathlib import Path

from bench.peer_tasks import records
from bench.pool_load import trades

__all__ = ["main"]

_TIMEOUT_S = 120.0
_POLL_S = 0.002


def main() -> None:
    """Serve rounds until stdin ends."""
    # What a library says belongs with the errors: stdout is for whoever holds the clock.
    answers, sys.stdout = sys.stdout, sys.stderr
    tell = functools.partial(print, file=answers, flush=True)
    app = importlib.import_module(f"bench.peer_tasks.{sys.argv[1]}")
    tell("up")
    for line in sys.stdin:
        first, count = map(int, line.split())
        given = list(trades(first, count))
        size = _size() + sum(len(records.line_of(trade)) for trade in given)
        gc.collect()
        tell("ready")
        sys.stdin.readline()
        started = time.perf_counter()
        app.enqueue(given)
        if os.devnull != records.FILE:
            _wait_for(size)
        tell(time.perf_counter() - started)


def _size() -> int:
    path = Path(records.FILE)
    return path.stat().st_size if path.is_file() else 0


def _wait_for(size: int) -> None:
    """What is written is synced at once, so the size tells. Raises: TimeoutError."""
    deadline = time.monotonic() + _TIMEOUT_S
    while (found := _size()) < size:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found} of {size} bytes are written")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
