"""What a trade costs in the server's memory, against its raw JSON, part by part.

    python bench/memory.py [--trades TRADES]

A million trades by default, of 2,000 users in 8 symbols, added as any others, journal and all; once the
outboxes are empty the growth of `used_memory` is what they cost. Raw JSON is the record as the journal's
lines have it; the JSON that the bot sent stands beside it. A part is what `used_memory` falls by when its
keys are deleted.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

from bench import pool_load
from bench.measurement import Numbers, run
from bench.pool_load import LoadedPool, fill
from tradepool import TradePool
from tradepool.model.codec import TRADE_KIND, split
from tradepool.store.connection import Client

__all__ = ["measure"]

TRADES = 1_000_000
QUICK_TRADES = 60_000
_SAMPLE = 10_000
_PARTS = {
    "r": "records",
    "u": "user_index",
    "s": "symbol_index",
    "open": "open_set",
    "recent": "recent",
    "c": "counters",
    "n": "changed_ids",
    "i": "idempotency_keys",
    "f": "fill_claims",
    "digest": "digests",
    "outbox": "outboxes",
    "expiry": "expiries",
    "users": "users",
    "route": "routes",
}
"""The part of a shard's key that names its family → what the table calls it."""


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Bytes a trade, in all and by part, and the ratios to both kinds of JSON."""
    wanted = trades or (QUICK_TRADES if quick else TRADES)
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        before = _used(loaded.pool.redis)
        added = fill(loaded, wanted)
        used = (_used(loaded.pool.redis) - before) / added
        stored_json, stored_value = _mean_sizes(loaded.pool)
        parts = _parts(loaded.pool.redis, added)
    sent_json = sum(len(json.dumps(trade)) for trade in pool_load.trades(0, _SAMPLE)) / _SAMPLE
    return {
        "trades": added,
        "raw_json_bytes": stored_json,
        "sent_json_bytes": sent_json,
        "stored_value_bytes": stored_value,
        "memory_bytes": used,
        "memory_ratio": used / stored_json,
        "memory_to_sent_ratio": used / sent_json,
        **parts,
        "rest_bytes": used - sum(parts.values()),
    }


def _mean_sizes(pool: TradePool) -> tuple[float, float]:
    """Bytes of a record's JSON and of its stored value, on average over all."""
    count = json_bytes = value_bytes = 0
    for shard in _shards(pool):
        for _, value in pool.store.scan_records(shard, TRADE_KIND):
            count += 1
            json_bytes += len(split(value)[1])
            value_bytes += len(value)
    return json_bytes / count, value_bytes / count


def _parts(server: Client, added: int) -> Numbers:
    """Bytes a trade of each family of keys; they are gone afterwards."""
    families: dict[str, list[bytes]] = defaultdict(list)
    for key in server.scan_iter(count=1000):
        words = key.split(b":")
        if words[1].startswith(b"{"):
            families[words[2].decode()].append(key)
    # A deletion in the background would count for the next part.
    server.config_set("lazyfree-lazy-user-del", "no")
    parts: Numbers = {}
    for family, name in _PARTS.items():
        before = _used(server)
        for key in families[family]:
            server.delete(key)
        parts[f"{name}_bytes"] = (before - _used(server)) / added
    return parts


def _shards(pool: TradePool) -> range:
    return range(pool.settings.shard_count)


def _used(server: Client) -> int:
    return int(server.info("memory")["used_memory"])


if __name__ == "__main__":
    run(measure)
