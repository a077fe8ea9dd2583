"""How many durable adds a second producers get through, against plain SETs of the stored size.

    python bench/durable_adds.py

`adds_per_s`: server, journal and three producers, each a process of its own (`pool_load.LoadedPool`); a
producer validates, decides, commits and waits until the journal has fsynced, 2000 trades at a time.
`mixed_adds_per_s`: the same where each trade is of another user, so each commit touches as many users as
trades. `embedded_adds_per_s`: one process alone, with the journal as a thread of it. The denominators are
SETs as redis-benchmark sends them, and SETs through redis-py's pipelines in one process, the client that
the pool uses as well.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.measurement import Numbers, median_ratio, medians, per_second, rounds_of, run
from bench.pool_load import (
    BATCH,
    PRODUCERS,
    LoadedPool,
    add_work,
    mixed_add_work,
    pin_append_only_file,
    trades,
    value_bytes,
)
from bench.set_rate import PIPELINED, SetClients
from tradepool import TradePool

__all__ = ["measure"]

ROUNDS = 5
SET_S = 1.0


def set_values(pool: TradePool, value: bytes, count: int) -> None:
    """SET `count` values through redis-py, PIPELINED at a time."""
    for first in range(0, count, PIPELINED):
        pipeline = pool.redis.pipeline(transaction=False)
        for number in range(first, min(first + PIPELINED, count)):
            pipeline.set(f"bench:{number}", value)
        pipeline.execute()


def embedded_rate(pool: TradePool, first: int, count: int) -> float:
    """Adds a second of a pool that keeps its own journal."""
    given = list(trades(first, count))
    return per_second(lambda: pool.add_trades(given), count)


def measure(*, quick: bool) -> Numbers:
    """Adds a second, and their ratios to SETs of a record's size."""
    count, rounds = (4_000, 2) if quick else (20_000, ROUNDS)
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        loaded = resources.enter_context(LoadedPool(folder / "fleet"))
        alone = resources.enter_context(TradePool.embedded(folder / "alone"))
        pin_append_only_file(alone.redis)
        loaded.rate(add_work, BATCH)
        size = value_bytes(loaded.pool, next(loaded.pool.get_all_trades()).trade_id)
        clients = resources.enter_context(SetClients(loaded.server.url, size))
        firsts = iter(range(0, rounds * count, count))
        results = rounds_of(
            rounds,
            sets_per_s=lambda: clients.rate(SET_S),
            adds_per_s=lambda: loaded.rate(add_work, count),
            mixed_adds_per_s=lambda: loaded.rate(mixed_add_work, count),
            pipelined_sets_per_s=lambda: per_second(lambda: set_values(alone, b"x" * size, count), count),
            embedded_adds_per_s=lambda: embedded_rate(alone, next(firsts), count),
        )
    sets, pipelined = results["sets_per_s"], results["pipelined_sets_per_s"]
    return {
        **medians(results),
        "adds_ratio": median_ratio(results["adds_per_s"], sets),
        "mixed_adds_ratio": median_ratio(results["mixed_adds_per_s"], sets),
        "embedded_adds_ratio": median_ratio(results["embedded_adds_per_s"], sets),
        "adds_to_pipelined_ratio": median_ratio(results["adds_per_s"], pipelined),
        "embedded_adds_to_pipelined_ratio": median_ratio(results["embedded_adds_per_s"], pipelined),
        "value_bytes": size,
        "producers": PRODUCERS,
    }


if __name__ == "__main__":
    run(measure)
