"""Old closed trades of a pool, and everything a pool says of its trades."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.loose_trades import buy, entry
from tradepool import TradePool
from tradepool.clock import now_us

DAY_US = 86_400 * 1_000_000
USERS = ("ann", "bob")


def closed_trade(pool: TradePool, user_id: str = "ann", *, days_ago: float = 30, **fields: Any) -> str:
    """A round trip that made 10 and ended `days_ago`; its id."""
    at = now_us() - int(days_ago * DAY_US)
    trade_id = pool.add_trade(buy(**{"user_id": user_id, "created_at": at} | fields)).trade_id
    pool.add_fill(trade_id, entry(f"f-{trade_id}", fields.get("amount", "1"), at=at))
    pool.close_trade(trade_id, "110", at=at)
    return trade_id


def some_of_each(pool: TradePool) -> list[str]:
    """Old closed trades of two users and symbols, two closed today, two open ones; the ids of the old."""
    old = []
    for number in range(3):
        for user_id in USERS:
            old.append(closed_trade(pool, user_id, days_ago=30 - number, symbol="ETH/USDT"))
            old.append(closed_trade(pool, user_id, days_ago=20 - number, idempotency_key=f"key {number}"))
    for user_id in USERS:
        closed_trade(pool, user_id, days_ago=0.001)
        pool.add_trade(buy(user_id=user_id, created_at=now_us() - 40 * DAY_US))
    return old


def pages(read: Any, name: str, **narrowing: Any) -> list[Any]:
    """All trades of a list, a page at a time."""
    return list(_walk(read, name, narrowing))


def everything(pool: TradePool) -> dict[str, Any]:
    """What readers get to see: as one value, to be equal before and after trades are archived."""
    streamed = list(pool.get_all_trades())
    trades = {trade.trade_id: trade for trade in streamed}
    return {
        "all": sorted(trade.trade_id for trade in streamed),
        "single": {trade_id: pool.get_trade(trade_id) for trade_id in trades},
        "histories": {trade_id: pool.get_trade_history(trade_id) for trade_id in trades},
        "users": {user: pages(pool.get_trades_by_user, user, limit=3) for user in USERS},
        "completed": {user: pages(pool.get_trades_by_user, user, status="completed") for user in USERS},
        "symbols": {
            symbol: pages(pool.get_trades_by_symbol, symbol, limit=2) for symbol in ("BTC/USDT", "ETH/USDT")
        },
        "summaries": {user: pool.get_user_summary(user) for user in USERS},
        "rows": sorted(pool.sql("SELECT trade_id, version, status, pnl, digest FROM trades").rows),
    }


def _walk(read: Any, name: str, narrowing: dict[str, Any]) -> Iterator[Any]:
    cursor = None
    while True:
        page = read(name, cursor=cursor, **narrowing)
        yield from page.trades
        cursor = page.cursor
        if cursor is None:
            return
