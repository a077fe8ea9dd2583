"""Where nothing is wrong nothing is found: in a pool of all kinds of trades, and while bots go on trading."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from tests.varied_trades import trade_on, varied_trades
from tradepool import TradePool
from tradepool.batching import batched

TRADES, TRADES_MANY = 2_000, 100_000
WRITERS = 3
RUNS = 5


@pytest.fixture
def pool(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=8) as opened:
        yield opened


@contextmanager
def at_work(pool):
    """Bots that trade until the block ends; what one of them raised comes out of it."""
    stop, problems = threading.Event(), []

    def work(bot):
        try:
            number = 0
            while not stop.is_set():
                trade_on(pool, f"user {bot * 7 + number % 5}", number := number + 1)
        except Exception as problem:  # noqa: BLE001 - told where the block ends
            problems.append(problem)

    bots = [threading.Thread(target=work, args=(bot,)) for bot in range(WRITERS)]
    for bot in bots:
        bot.start()
    try:
        yield
    finally:
        stop.set()
        for bot in bots:
            bot.join()
    assert problems == []


def fill(pool, count, users):
    for page in batched(varied_trades(count, users), 2_000):
        pool.add_trades(page)


def test_a_pool_of_all_kinds_of_trades_has_no_findings(pool):
    fill(pool, TRADES, users=40)
    pool.write_snapshot()

    for level in ("digest", "standard", "deep"):
        report = pool.check_all_trades(level=level)
        assert (report.findings, report.undecided) == ((), ())
    assert report.checked == {"shards": 8, "records": TRADES}
    assert pool.check_trades("user 7").ok


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_large_pool_has_no_findings_while_bots_trade(pool):
    fill(pool, TRADES_MANY, users=2_000)

    with at_work(pool):
        pool.write_snapshot()
        for run in range(RUNS):
            reports = [pool.check_all_trades(level=level) for level in ("digest", "standard", "deep")]
            reports += [pool.check_trades(f"user {run}", deep=False)]
            assert [report.findings for report in reports if not report.ok] == []
    assert reports[2].checked["records"] > TRADES_MANY
