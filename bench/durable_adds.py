"""How many durable adds a second an embedded pool takes, against plain SETs of the same values.

    python bench/durable_adds.py [TRADES]

One process, one run, the same server: `SET` is redis-py pipelining 100 values of the stored size, the
denominator; the pool validates, decides, commits, journals with fsync and returns receipts. Ratios of
medians over rounds that alternate between the two.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from tradepool import TradePool

ROUNDS = 5
PIPELINED = 100
USERS = 20


def trades(count: int, batch: int) -> Iterator[dict[str, object]]:
    """Filled trades of a few users, with what bots usually send along."""
    for number in range(count):
        yield {
            "user_id": f"user-{number % USERS}",
            "exchange": "kraken",
            "symbol": ("BTC/USDT", "ETH/USDT", "SOL/USDT")[number % 3],
            "side": "buy",
            "amount": f"0.{number % 9 + 1}",
            "price": 20_000 + number % 500,
            "status": "filled",
            "strategy": "momentum",
            "signals": {"rsi": number % 3 - 1, "combined": batch},
            "market_conditions": {"trend": "flat", "volatility": 0.42},
        }


def per_second(work: Callable[[], object], count: int) -> float:
    """`count` over the time that `work` takes."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def set_values(pool: TradePool, value: bytes, count: int) -> None:
    """SET `count` values, PIPELINED at a time."""
    for first in range(0, count, PIPELINED):
        pipeline = pool.redis.pipeline(transaction=False)
        for number in range(first, min(first + PIPELINED, count)):
            pipeline.set(f"bench:{number}", value)
        pipeline.execute()


def main(count: int) -> None:
    """Alternate between both and print the medians."""
    with tempfile.TemporaryDirectory() as folder, TradePool.embedded(folder) as pool:
        sample = pool.add_trade(next(trades(1, 0))).trade_id
        shard = pool.store.shard_of_trade(sample) or 0
        value = pool.store.read([(shard, sample)])[0] or b""
        adds, sets = [], []
        for batch in range(1, ROUNDS + 1):
            sets.append(per_second(lambda: set_values(pool, value, count), count))
            given = list(trades(count, batch))
            adds.append(per_second(lambda given=given: pool.add_trades(given), count))
        ratio = statistics.median(a / s for a, s in zip(adds, sets, strict=True))
    print(f"{count} trades a round, {ROUNDS} rounds, {len(value)} bytes a stored value")
    print(f"durable adds/s    {statistics.median(adds):>10,.0f}")
    print(f"pipelined SETs/s  {statistics.median(sets):>10,.0f}")
    print(f"ratio             {ratio:>10.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
