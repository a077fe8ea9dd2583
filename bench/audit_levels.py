"""How long the audit of the whole pool takes at each depth, at a million trades.

    python bench/audit_levels.py [--trades TRADES]

The digest level compares 64 digests and reads no record. The deep audit reads the whole journal and every
record, decodes it, checks its rules, indexes and counters. The standard level reads what is open, here every
trade. For scale: every record read and its JSON hashed again, which finds a value that was corrupted in the
server.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.measurement import Numbers, percentile, run, seconds
from bench.pool_load import LoadedPool, fill
from tradepool import TradePool
from tradepool.model.codec import digest_of, split

__all__ = ["measure"]

TRADES = 1_000_000
QUICK_TRADES = 30_000
REPEATS = 20


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Milliseconds of the digest level, seconds of the others, and how many rehashes one deep audit costs."""
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        added = fill(loaded, trades or (QUICK_TRADES if quick else TRADES))
        digests = [seconds(loaded.pool.check_all_trades) for _ in range(REPEATS)]
        rehash = seconds(lambda: _rehash(loaded.pool))
        standard = seconds(lambda: loaded.pool.check_all_trades(level="standard"))
        deep = seconds(lambda: _check_deep(loaded.pool))
    return {
        "trades": added,
        "digest_level_p50_ms": percentile(digests, 50) * 1e3,
        "digest_level_max_ms": max(digests) * 1e3,
        "rehash_s": rehash,
        "standard_s": standard,
        "deep_s": deep,
        "deep_record_us": deep / added * 1e6,
        "deep_to_rehash_ratio": deep / rehash,
        "deep_to_digest_ratio": deep / percentile(digests, 50),
    }


def _rehash(pool: TradePool) -> None:
    for shard in range(pool.settings.shard_count):
        for record_id, value in pool.store.scan_records(shard):
            header, body = split(value)
            assert digest_of(body) == header.digest, record_id


def _check_deep(pool: TradePool) -> None:
    report = pool.check_all_trades(deep=True)
    assert report.ok, report.counts


if __name__ == "__main__":
    run(measure)
