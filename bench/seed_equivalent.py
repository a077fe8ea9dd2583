"""What the old bot's pool took for an add, written afresh from its description, and what this one takes.

    python bench/seed_equivalent.py

The old way, on asyncio as the old bot was: each step awaited, a round trip of its own, nothing atomic: the
trade as JSON with a life of seven days, again in the user's hash, again in a list of the 10,000 newest, and
the user's summary read, changed and written back; with files also a line of log and the whole of
`trades.json` written again. Ours is durable
and audited; both on the same server in the same run, the old way from one process as it ran, ours from one
and from three.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from itertools import count
from pathlib import Path
from typing import Any

import redis.asyncio

from bench.measurement import Numbers, median_ratio, medians, per_second, rounds_of, run
from bench.pool_load import PRODUCERS, LoadedPool, add_work, trade, trades

__all__ = ["measure"]

ROUNDS = 3
FILE_TRADES = 10_000
"""Trades in the old `trades.json` while adds with files are measured."""
FILE_ADDS = 3
LIFE_S = 604_800
RECENT_MAX = 10_000

Fields = dict[str, Any]


class OldPool:
    """The old way to add a trade; `folder` None: Redis only."""

    def __init__(self, url: str, folder: Path | None, present: list[Fields]) -> None:
        self._url = url
        self._folder = folder
        self._trades = present

    def add_all(self, trades: list[Fields]) -> None:
        """Add one trade after the other, a step at a time."""
        asyncio.run(self._add_all(trades))

    async def _add_all(self, trades: list[Fields]) -> None:
        async with redis.asyncio.from_url(self._url) as self._server:
            for each in trades:
                await self._add(each)

    async def _add(self, trade: Fields) -> None:
        stored = {**trade, "trade_id": f"trade:{uuid.uuid4()}", "pnl": 0.0}
        text, user = json.dumps(stored), stored["user_id"]
        await self._server.set(stored["trade_id"], text, ex=LIFE_S)
        await self._server.hset(f"user_trades:{user}", stored["trade_id"], text)
        await self._server.lpush("recent_trades", text)
        await self._server.ltrim("recent_trades", 0, RECENT_MAX - 1)
        await self._summarise(user, stored)
        if self._folder is not None:
            self._write_files(self._folder, stored, text)

    async def _summarise(self, user: str, stored: Fields) -> None:
        found = await self._server.get(f"user_summary:{user}")
        summary = json.loads(found) if found else {"total_trades": 0, "total_pnl": 0.0, "total_amount": 0.0}
        summary["total_trades"] += 1
        summary["total_pnl"] += stored["pnl"]
        summary["total_amount"] += float(stored["amount"])
        await self._server.set(f"user_summary:{user}", json.dumps(summary))

    def _write_files(self, folder: Path, stored: Fields, text: str) -> None:
        with (folder / "old.log").open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        self._trades.append(stored)
        with (folder / "old.json").open("w", encoding="utf-8") as file:
            json.dump(self._trades, file, indent=2)


def measure(*, quick: bool) -> Numbers:
    """Adds a second of the old way without and with files, of ours, and the factors between them."""
    old_adds, our_adds = (500, 2_000) if quick else (3_000, 20_000)
    numbers = count()
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        url = loaded.pool.settings.redis_url
        in_redis = OldPool(url, None, [])
        with_files = OldPool(url, Path(folder), list(trades(0, FILE_TRADES)))

        def old_rate(pool: OldPool, adds: int) -> float:
            given = [trade(next(numbers)) for _ in range(adds)]
            return per_second(lambda: pool.add_all(given), adds)

        loaded.rate(add_work, our_adds // PRODUCERS)
        results = rounds_of(
            2 if quick else ROUNDS,
            old_per_s=lambda: old_rate(in_redis, old_adds),
            old_with_files_per_s=lambda: old_rate(with_files, FILE_ADDS),
            ours_3_producers_per_s=lambda: loaded.rate(add_work, our_adds // PRODUCERS),
            ours_1_producer_per_s=lambda: _ours_alone(loaded, our_adds // PRODUCERS),
        )
    return {
        **medians(results),
        "factor_ratio": median_ratio(results["ours_3_producers_per_s"], results["old_per_s"]),
        "factor_with_files_ratio": median_ratio(
            results["ours_3_producers_per_s"], results["old_with_files_per_s"]
        ),
        "factor_1_producer_ratio": median_ratio(results["ours_1_producer_per_s"], results["old_per_s"]),
    }


def _ours_alone(loaded: LoadedPool, adds: int) -> float:
    given = list(trades(0, adds))
    return per_second(lambda: loaded.pool.add_trades(given), adds)


if __name__ == "__main__":
    run(measure)
