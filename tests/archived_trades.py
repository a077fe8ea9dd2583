"""Old closed trades of a pool, and everything a pool says of its trades."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tests.loose_trades import buy, entry
from tradepool import Receipt, TradePool, commanding
from tradepool.archive.parts import read_rows
from tradepool.clock import now_us
from tradepool.model.commands import Command

DAY_US = 86_400 * 1_000_000
USERS = ("ann", "bob")


def closed_trade(pool: TradePool, user_id: str = "ann", *, days_ago: float = 30, **fields: Any) -> str:
    """A round trip that made 10, all of it `days_ago`; its id."""
    at = now_us() - int(days_ago * DAY_US)
    trade = buy(**{"user_id": user_id, "created_at": at} | fields)
    trade_id = applied_at(pool, commanding.add_trade(trade), at).trade_id
    amount = fields.get("amount", "1")
    applied_at(pool, commanding.add_fill(trade_id, entry(f"f-{trade_id}", amount, at=at)), at)
    applied_at(pool, closing(trade_id, at), at)
    return trade_id


def applied_at(pool: TradePool, command: Command, at: int) -> Receipt:
    """What came of the command, given at a time long ago."""
    (receipt,) = pool.core.apply([msgspec.structs.replace(command, as_of=at)])
    assert isinstance(receipt, Receipt), receipt
    return receipt


def changed(pool: TradePool, trade_id: str) -> None:
    """Somebody changes such a trade, long ago, but only now is it told."""
    at = now_us() - 20 * DAY_US
    applied_at(pool, commanding.update_trade(trade_id, {"strategy": "late"}, expected_version=None), at)


def closing(trade_id: str, at: int) -> Command:
    """The command that closes such a trade."""
    return commanding.close_trade(trade_id, "110", fee=0, fee_currency=None, amount=None, at=at)


def archive_rows(pool: TradePool) -> list[str]:
    """The trade of each row that lies in the archive, counted or not."""
    folder = pool.settings.data_dir / "archive"
    return [row.trade_id for part in folder.glob("day=*/part-*.parquet") for row in read_rows(part)]


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
