"""Import files in the forms other programs write, and a pool in memory to import them into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tradepool.errors import Rejected, UnknownTrade
from tradepool.importers import Defaults, Format, open_import
from tradepool.model import changes
from tradepool.model.commands import AddTrade
from tradepool.model.receipt import Receipt
from tradepool.model.relations import check_relation
from tradepool.narrowing import Page

SHARED = Path(__file__).parents[1] / "../shared/data"
with_shared_data = pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")

ROW = {
    "symbol": "SOL/USDT",
    "side": "buy",
    "amount": 0.34108424,
    "price": 150.867671844,
    "timestamp": "2025-03-20T00:07:00+00:00",
    "order_type": "market",
    "exchange": "mexc",
    "roi": "N/A",
    "strategy": "rsi",
    "user_id": "USER5",
    "signals": {"rsi": 1, "strength": 0.25},
    "pnl": 0.0,
    "status": "pending",
    "related_trade_id": None,
    "source": "real",
    "trade_id": "trade:1",
}
FREQTRADE_TRADE = {
    "pair": "ETH/BTC",
    "stake_amount": 0.001,
    "amount": 2.0,
    "open_rate": 0.05,
    "close_rate": 0.06,
    "fee_open": 0.0025,
    "fee_close": 0.001,
    "open_timestamp": 1515568500000.0,
    "close_timestamp": 1515568800000.0,
    "profit_abs": 0.02,
    "profit_ratio": 0.2,
    "exit_reason": "roi",
    "is_open": False,
    "is_short": False,
    "leverage": 1.0,
    "enter_tag": None,
    "orders": None,
}


class MemoryPool:
    """What an import needs of a pool, kept in a dict."""

    def __init__(self):
        self.trades = {}

    def apply(self, commands):
        return [self._apply(command) for command in commands]

    def get_trade(self, trade_id):
        if trade_id not in self.trades:
            raise UnknownTrade("no such trade", field="trade_id", value=trade_id)
        return self.trades[trade_id]

    def get_trades_by_user(self, user_id, *, limit, cursor):
        assert limit
        assert cursor is None
        return Page(trades=[trade for trade in self.trades.values() if trade.user_id == user_id])

    def _apply(self, command):
        try:
            if isinstance(command, AddTrade):
                trade_id = command.trade["trade_id"]
                before = self.trades.get(trade_id)
                change = changes.add(command, trade_id=trade_id, existing=before)
            else:
                before = self.get_trade(command.trade_id)
                change = changes.change(before, command)
            check_relation(before, change.trade, self.trades.get)
        except Rejected as refusal:
            return refusal
        trade = self.trades[change.trade.trade_id] = change.trade
        return Receipt(trade_id=trade.trade_id, outcome=change.outcome, version=trade.version, position="1-0")


def entries(path, *, user=None, source=None, file_format=Format.AUTO):
    return list(
        open_import(path, file_format=file_format, defaults=Defaults(user=user, source=source)).entries
    )


def update(trade_id, pnl, status):
    return f"Update: {trade_id} - PNL={pnl}, status={status}"


def write_log(folder, *lines):
    path = folder / "trade_pool.log"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def write_snapshot(folder, rows):
    path = folder / "trades.json"
    path.write_text(json.dumps(rows, indent=2))
    return path


def write_export(folder, *trades, run_id="one"):
    path = folder / "backtest-result.json"
    path.write_text(
        json.dumps({"metadata": {"S": {"run_id": run_id}}, "strategy": {"S": {"trades": list(trades)}}})
    )
    return path
