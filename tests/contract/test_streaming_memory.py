"""Reading everything takes no more memory than reading a little: measured in a process that only reads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.loose_trades import buy
from tradepool import TradePool

TRADES = 200_000
GROWTH_BYTES_MAX = 24 << 20
"""All trades at once would take more than ten times as much; the ids of those seen take 16 bytes each."""

READER = """
import resource, sys
from tradepool import Settings, TradePool

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

def pages(pool):
    cursor = None
    while True:
        page = pool.get_trades_by_symbol("BTC/USDT", limit=2000, cursor=cursor)
        yield from page.trades
        cursor = page.cursor
        if cursor is None:
            return

streams = {
    "all": lambda pool: pool.get_all_trades(),
    "narrowed": lambda pool: pool.get_all_trades(strategy="none"),
    "open": lambda pool: pool.get_open_trades(),
    "symbol": pages,
    "export": lambda pool: range(pool.export(sys.argv[3])),
}
with TradePool.connect(Settings(redis_url=sys.argv[1], data_dir=sys.argv[2])) as pool:
    pool.get_recent_trades(2000)
    before = peak()
    counts = [sum(1 for _ in stream(pool)) for stream in streams.values()]
    print(*counts, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_streams_of_all_trades_take_little_memory(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool") as pool:
        pool.add_trades(buy(user_id=f"user {number % 1000}", status="filled") for number in range(TRADES))
        # A fresh interpreter: what this process has used before does not count.
        reader = [sys.executable, "-c", READER, pool.settings.redis_url, str(pool.settings.data_dir)]
        ran = subprocess.run([*reader, tmp_path / "all.jsonl"], capture_output=True, text=True, check=True)
    *counts, growth_bytes = map(int, ran.stdout.split())
    assert counts == [TRADES, 0, TRADES, TRADES, TRADES]
    assert growth_bytes < GROWTH_BYTES_MAX, f"{growth_bytes / 2**20:.0f} MiB"
