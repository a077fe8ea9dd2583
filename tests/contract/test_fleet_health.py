"""What `tradepool status` finds wrong with a fleet's marks, and what it says to do."""

from __future__ import annotations

import msgspec
import pytest

from tests.loose_trades import buy
from tradepool import TradePool, wire
from tradepool.broker import ChangeSender
from tradepool.clock import now_us
from tradepool.fleet.health import GPU_WAITING_MAX, Health, read_health
from tradepool.settings import Settings

HOUR_US = 3_600_000_000


@pytest.fixture
def sender(settings: Settings, redis_client):
    """That of an empty broker."""
    with ChangeSender(settings) as opened:
        yield opened


@pytest.fixture
def pool(settings: Settings, tmp_path):
    with TradePool.embedded(tmp_path / "pool", mark_every_s=1) as opened:
        for symbol in ("A/USDT", "B/USDT", "C/USDT", "D/USDT", "E/USDT"):
            opened.add_trade(buy(symbol=symbol, status="filled"))
        yield opened


def problems(health: Health) -> list[str]:
    return [problem.what for problem in health.problems]


def test_marks_that_are_old_or_lack_prices_are_problems_of_a_fleet(pool: TradePool, sender: ChangeSender):
    assert problems(read_health(pool, sender)) == []
    prices = {f"{letter}/USDT": "1" for letter in "ABCDE"}
    pool.mark_to_market(prices)
    assert problems(read_health(pool, sender)) == []
    pool.set_prices({"A/USDT": "1"}, at=(now_us() - HOUR_US) // 1_000_000)
    pool.mark_to_market()
    missing, stale = problems(read_health(pool, sender))
    assert missing == "open trades in B/USDT, C/USDT, D/USDT and 1 more have no price: they are in no figure"
    assert stale.startswith("open trades in A/USDT are marked at a price up to 3,60")
    assert read_health(pool, None).ok


def test_marks_without_a_tick_for_long_are_a_problem(pool: TradePool, sender: ChangeSender):
    pool.mark_to_market({f"{letter}/USDT": "1" for letter in "ABCDE"}, at=(now_us() - HOUR_US) // 1_000_000)
    (problem,) = read_health(pool, sender).problems
    assert problem.what.startswith("the marks are 3,60")
    assert problem.what.endswith(" s old, and one is due every 1 s")
    assert "is beat running?" in problem.cure


def test_a_book_that_differs_from_the_store_is_a_problem(pool: TradePool, sender: ChangeSender):
    for part, different in enumerate((0, 3)):
        pool.store.write_book_check(part, 2, msgspec.json.encode({"different": different, "rows": 5}))
    health = read_health(pool, sender)
    assert health.book_differences == 3
    assert problems(health) == ["the book that is marked differs from the store in 3 trades"]


def test_a_gpu_queue_that_nobody_takes_ticks_from_is_a_problem(pool: TradePool, sender: ChangeSender):
    for _ in range(GPU_WAITING_MAX + 1):
        sender.call(wire.QUEUE_GPU, "tasks.pnl.mark_to_market", [])
    assert problems(read_health(pool, sender)) == ["51 messages wait on the queue gpu: no worker takes them"]
