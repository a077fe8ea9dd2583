"""How fast every trade of the pool is read and decoded, against what one core decodes when it has the values.

    python bench/scan_decode.py

The numerator is `get_all_trades`: HSCAN in pages, records unpacked into trades, each once. The denominator
unpacks the same values from memory. Both in one process, in rounds that alternate.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable

from bench.measurement import Numbers, median_ratio, medians, per_second, rounds_of, run
from bench.pool_load import pin_append_only_file, trades
from tradepool import TradePool
from tradepool.model.codec import TRADE_KIND, unpack_trade

__all__ = ["measure"]

ROUNDS = 7


def measure(*, quick: bool) -> Numbers:
    """Trades a second of both, and their ratio."""
    count = 20_000 if quick else 200_000
    with tempfile.TemporaryDirectory() as folder, TradePool.embedded(folder) as pool:
        pin_append_only_file(pool.redis)
        pool.add_trades(trades(0, count))
        shards = range(pool.settings.shard_count)
        values = [value for shard in shards for _, value in pool.store.scan_records(shard, TRADE_KIND)]
        results = rounds_of(
            3 if quick else ROUNDS,
            scanned_per_s=lambda: per_second(lambda: _exhaust(pool.get_all_trades()), count),
            decoded_per_s=lambda: per_second(lambda: _exhaust(map(unpack_trade, values)), count),
            raw_scanned_per_s=lambda: per_second(lambda: _exhaust(_scanned(pool)), count),
        )
    ratio = median_ratio(results["scanned_per_s"], results["decoded_per_s"])
    return {**medians(results), "scan_ratio": ratio, "trades": count}


def _scanned(pool: TradePool) -> Iterable[object]:
    for shard in range(pool.settings.shard_count):
        yield from pool.store.scan_records(shard, TRADE_KIND)


def _exhaust(items: Iterable[object]) -> None:
    deque(items, maxlen=0)


if __name__ == "__main__":
    run(measure)
