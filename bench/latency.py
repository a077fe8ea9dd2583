"""How long one client waits for the acknowledgement of 1 change and of 100: committed and fsynced.

    python bench/latency.py

Embedded (the journal is a thread of the same process) and with the journal in a process of its own, as the
fleet has it. Nothing else uses the pool meanwhile. A disk's bare fdatasync is measured beside it: no
acknowledgement can be faster.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from bench.measurement import Numbers, percentiles_ms, run, seconds
from bench.pool_load import LoadedPool, pin_append_only_file, trades
from tradepool import TradePool

__all__ = ["measure", "sync_times"]

CALLS = {1: 2_000, 100: 500}
"""Changes a call → calls."""
WARM_CALLS = 50
SYNCS = 500
_SYNC_BYTES = 4096


def measure(*, quick: bool) -> Numbers:
    """Percentiles of the time of `add_trades`, and of the disk's fdatasync."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = sync_times(Path(folder))
    with tempfile.TemporaryDirectory() as folder, TradePool.embedded(folder) as pool:
        pin_append_only_file(pool.redis)
        numbers |= _ack_times(pool, "embedded", quick=quick)
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder), producers=0) as loaded:
        numbers |= _ack_times(loaded.pool, "separate", quick=quick)
    return numbers


def _ack_times(pool: TradePool, name: str, *, quick: bool) -> Numbers:
    numbers: Numbers = {}
    for changes, calls in CALLS.items():
        given = [list(trades(changes * n, changes)) for n in range(WARM_CALLS + calls // (4 if quick else 1))]
        taken = [seconds(partial(pool.add_trades, batch)) for batch in given][WARM_CALLS:]
        numbers |= percentiles_ms(f"{name}_{changes}", taken)
    return numbers


def sync_times(folder: Path) -> Numbers:
    """Percentiles of an fdatasync of a file in `folder` that grows by a page."""
    with (folder / "probe").open("wb", buffering=0) as file:

        def append() -> None:
            file.write(bytes(_SYNC_BYTES))
            os.fdatasync(file.fileno())

        return percentiles_ms("fdatasync", [seconds(append) for _ in range(SYNCS)])


if __name__ == "__main__":
    run(measure)
