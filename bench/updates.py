"""How many durable updates a second three producers get through, against plain SETs of the stored size.

    python bench/updates.py

Server, journal and producers are processes of their own (`pool_load.LoadedPool`). Each round a producer
adds trades untimed and then changes each of them once: a stop loss, or an exit of a part of it. An update
reads, decompresses and decodes a record, decides, encodes, compresses, commits by version and waits for the
fsync.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measurement import Numbers, median_ratio, medians, rounds_of, run
from bench.pool_load import BATCH, PRODUCERS, LoadedPool, apply_all, trades, value_bytes
from bench.set_rate import SetClients
from tradepool import TradePool
from tradepool.batching import batched
from tradepool.commanding import add_fill, update_trade
from tradepool.model.commands import Command

__all__ = ["measure"]

ROUNDS = 5
SET_S = 1.0


def update_work(pool: TradePool, producer: int, count: int) -> Callable[[], object]:
    """Setting the stop loss of `count` trades."""
    ids = _added(pool, producer, count)
    commands = [update_trade(trade_id, {"stop_loss": "19000.5"}, expected_version=None) for trade_id in ids]
    return _applying(pool, commands)


def fill_work(pool: TradePool, producer: int, count: int) -> Callable[[], object]:
    """Booking an exit on each of `count` trades."""
    commands = [
        add_fill(
            trade_id,
            {
                "fill_id": f"v-{trade_id}",
                "role": "exit",
                "amount": "0.0001",
                "price": "20001.5",
                "fee": "0.5",
            },
        )
        for trade_id in _added(pool, producer, count)
    ]
    return _applying(pool, commands)


def _added(pool: TradePool, producer: int, count: int) -> list[str]:
    return [receipt.trade_id for receipt in pool.add_trades(trades(producer * count, count))]


def _applying(pool: TradePool, commands: Sequence[Command]) -> Callable[[], object]:
    def work() -> None:
        applied = apply_all(pool, list(batched(commands, BATCH)))
        assert applied == len(commands), "every command changes its trade"

    return work


def measure(*, quick: bool) -> Numbers:
    """Updates and fills a second, and their ratios to SETs of an updated record's size."""
    count = 2_000 if quick else 10_000
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        loaded.rate(update_work, BATCH)
        sample = next(loaded.pool.get_all_trades()).trade_id
        size = value_bytes(loaded.pool, sample)
        with SetClients(loaded.server.url, size) as clients:
            results = rounds_of(
                2 if quick else ROUNDS,
                sets_per_s=lambda: clients.rate(SET_S),
                updates_per_s=lambda: loaded.rate(update_work, count),
                fills_per_s=lambda: loaded.rate(fill_work, count),
            )
    return {
        **medians(results),
        "updates_ratio": median_ratio(results["updates_per_s"], results["sets_per_s"]),
        "fills_ratio": median_ratio(results["fills_per_s"], results["sets_per_s"]),
        "value_bytes": size,
        "producers": PRODUCERS,
    }


if __name__ == "__main__":
    run(measure)
