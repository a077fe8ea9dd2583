"""Pages that are read while others write: what was there at the start comes once, and nothing comes twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.archived_trades import DAY_US, closed_trade
from tests.loose_trades import buy, entry
from tradepool import TradePool
from tradepool.clock import now_us

MOMENTS = tuple(now_us() - days * DAY_US for days in (1, 12, 12, 30))
WORKS = 12
ROUNDS = 2


@pytest.fixture
def pool(server_binary, tmp_path):
    """Trades of few moments, so that pages end among many of one time; old ones wait to be archived."""
    with TradePool.embedded(tmp_path / "pool", shard_count=4) as opened:
        for number in range(16):
            closed_trade(opened, ("ann", "bob")[number % 2], days_ago=10 + number % 3)
        opened.add_trades(_new_trade(number) for number in range(80))
        yield opened


def _new_trade(number):
    return buy(user_id=("ann", "bob", "cid")[number % 3], created_at=MOMENTS[number % 4], status="pending")


@contextmanager
def writers(*works):
    """Threads that each do their work a few times, or until the block ends; their errors are ours."""
    stop = threading.Event()

    def repeat(work):
        for number in range(WORKS):
            if stop.is_set():
                return
            work(number)

    with ThreadPoolExecutor(len(works)) as threads:
        done = [threads.submit(repeat, work) for work in works]
        try:
            yield
        finally:
            stop.set()
    for one in done:
        one.result()


def walked(read, limit):
    found, cursor = [], None
    while True:
        page = read(limit=limit, cursor=cursor)
        assert len(page.trades) <= limit
        found += [trade.trade_id for trade in page.trades]
        cursor = page.cursor
        if cursor is None:
            return found


def add(pool, number):
    pool.add_trades(_new_trade(4 * number + extra) for extra in range(4))


def archive(pool, number):
    if number % 4 == 0:
        closed_trade(pool, "ann", days_ago=11)
        pool.archive_closed_trades()


def test_pages_neither_skip_nor_repeat_while_others_write(pool):
    ids = [trade.trade_id for trade in pool.get_open_trades()]

    def change(number):
        pool.add_fill(ids[number], entry(f"f{number}", "0.001"))

    for read in (
        partial(pool.get_trades_by_user, "ann"),
        partial(pool.get_trades_by_user, "bob", symbol="BTC/USDT", source="real"),
        partial(pool.get_trades_by_symbol, "BTC/USDT"),
    ):
        before = set(walked(read, 1000))
        with writers(partial(add, pool), partial(archive, pool), change):
            found = walked(read, 5)
        assert len(found) == len(set(found))
        assert before - set(found) == set()


def test_a_stream_has_every_trade_once_while_others_write(pool):
    for _ in range(ROUNDS):
        before = {trade.trade_id for trade in pool.get_all_trades()}
        with writers(partial(add, pool), partial(archive, pool)):
            found = [trade.trade_id for trade in pool.get_all_trades()]
        assert len(found) == len(set(found))
        assert before - set(found) == set()
