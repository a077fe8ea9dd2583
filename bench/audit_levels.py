"""What the audit of the whole pool costs at each depth, beside a comparison that knows no digests.

    python bench/audit_levels.py [--trades TRADES]

The digest level compares 64 digests and reads no record: `digest_level_server_ms` is the time that the server
spent on its commands. The deep audit reads the whole journal and every record, decodes it, checks its rules,
indexes, claims and counters. The standard level reads what is open, here every trade.

Costs per record are processor time of the one process that audits, so they are per core, and other work on
the machine does not count. What they are held against:

* `full_compare`: all of the journal and of the store is decoded with the standard library into trades with
  Decimals, each pair compared and each trade worked out again. So somebody would do it who has no digests.
* `decode_compare`: the same with the decoder that this store has, in a fifth of the time. It checks no index,
  no claim and no counter, which a deep audit does.
* `rehash`: every record read and its JSON hashed again, which finds a value that was corrupted in the server.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measurement import Numbers, percentile, run, seconds
from bench.pool_load import LoadedPool, fill
from tradepool import Trade, TradePool
from tradepool.files.reading import read_lines
from tradepool.model.codec import decode_trade, digest_of, split
from tradepool.model.pnl import recompute

__all__ = ["measure"]

TRADES = 1_000_000
QUICK_TRADES = 30_000
REPEATS = 20
ROUNDS = 3
MANY = 100_000
"""From here on one round of each is enough."""


def measure(*, quick: bool, trades: int | None = None) -> Numbers:
    """Milliseconds of the digest level, seconds of the others, processor time per record and its ratios."""
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        pool = loaded.pool
        added = fill(loaded, trades or (QUICK_TRADES if quick else TRADES))
        server_ms, digests = _digest_level(pool)
        standard = seconds(lambda: pool.check_all_trades(level="standard"))
        rounds = 1 if added > MANY else ROUNDS
        costs = {
            "rehash": _record_us(rounds, added, lambda: _rehash(pool)),
            "deep": _record_us(rounds, added, lambda: _check_deep(pool)),
            "decode_compare": _record_us(rounds, added, lambda: _compare(pool, decode_trade)),
            "full_compare": _record_us(1, added, lambda: _compare(pool, _decode_plainly)),
        }
        deep = seconds(lambda: _check_deep(pool))
    return {
        "trades": added,
        "digest_level_server_ms": server_ms,
        "digest_level_p50_ms": percentile(digests, 50) * 1e3,
        "digest_level_max_ms": max(digests) * 1e3,
        "standard_s": standard,
        "deep_s": deep,
        **{f"{name}_record_us": cost for name, cost in costs.items()},
        "full_compare_to_rehash_ratio": costs["full_compare"] / costs["rehash"],
        "full_compare_to_deep_ratio": costs["full_compare"] / costs["deep"],
        "decode_compare_to_rehash_ratio": costs["decode_compare"] / costs["rehash"],
        "decode_compare_to_deep_ratio": costs["decode_compare"] / costs["deep"],
        "deep_to_rehash_ratio": costs["deep"] / costs["rehash"],
    }


def _digest_level(pool: TradePool) -> tuple[float, list[float]]:
    """The server's own time for one audit, milliseconds, and how long each of several took, seconds."""
    before = _server_us(pool)
    taken = [seconds(pool.check_all_trades) for _ in range(REPEATS)]
    return (_server_us(pool) - before) / REPEATS / 1e3, taken


def _server_us(pool: TradePool) -> float:
    """What the server has spent on commands so far, µs, but for those that ask for this."""
    stats = pool.redis.info("commandstats")
    return sum(float(each["usec"]) for name, each in stats.items() if name != "cmdstat_info")


def _record_us(rounds: int, records: int, work: Callable[[], object]) -> float:
    """Processor time of `work` for each record, µs: the least of some rounds."""
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent) / records * 1e6


def _rehash(pool: TradePool) -> None:
    for record_id, value in _stored(pool):
        header, body = split(value)
        assert digest_of(body) == header.digest, record_id


def _stored(pool: TradePool) -> Iterator[tuple[str, bytes]]:
    for shard in range(pool.settings.shard_count):
        yield from pool.store.scan_records(shard)


def _compare(pool: TradePool, decode: Callable[[bytes], Trade]) -> None:
    """Every trade of the journal, decoded, with that of the store, decoded; each worked out again."""
    journaled = {
        line.record_id: decode(bytes(line.record))
        for line in read_lines(pool.settings.data_dir / "trade_pool.log")
    }
    for record_id, value in _stored(pool):
        trade = decode(split(value)[1])
        assert trade == journaled.pop(record_id), record_id
        assert recompute(trade) == trade, record_id
    assert not journaled


def _decode_plainly(body: bytes) -> Trade:
    return Trade.from_dict({"schema_version": 1, **json.loads(body)})


def _check_deep(pool: TradePool) -> None:
    report = pool.check_all_trades(deep=True)
    assert report.ok, report.counts


if __name__ == "__main__":
    run(measure)
