"""SQLite files as freqtrade left them in three ages: the first, the first with orders, the present."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

FIRST = {
    "trades": """id INTEGER PRIMARY KEY, exchange VARCHAR NOT NULL, pair VARCHAR NOT NULL,
        is_open BOOLEAN NOT NULL, fee FLOAT NOT NULL, open_rate FLOAT, close_rate FLOAT, close_profit FLOAT,
        stake_amount FLOAT NOT NULL, amount FLOAT, open_date DATETIME NOT NULL, close_date DATETIME,
        open_order_id VARCHAR""",
}
WITH_ORDERS = {
    "trades": """id INTEGER PRIMARY KEY, exchange VARCHAR, pair VARCHAR, is_open BOOLEAN, fee_open FLOAT,
        fee_open_cost FLOAT, fee_open_currency VARCHAR, fee_close FLOAT, open_rate FLOAT, close_rate FLOAT,
        close_profit FLOAT, close_profit_abs FLOAT, stake_amount FLOAT, amount FLOAT, open_date DATETIME,
        close_date DATETIME, open_order_id VARCHAR, stop_loss FLOAT, max_rate FLOAT, min_rate FLOAT,
        sell_reason VARCHAR, buy_tag VARCHAR, strategy VARCHAR, timeframe INTEGER""",
    "orders": """id INTEGER PRIMARY KEY, ft_trade_id INTEGER, ft_order_side VARCHAR, ft_pair VARCHAR,
        ft_is_open BOOLEAN, order_id VARCHAR, status VARCHAR, symbol VARCHAR, order_type VARCHAR,
        side VARCHAR, price FLOAT, amount FLOAT, filled FLOAT, remaining FLOAT, cost FLOAT,
        order_date DATETIME, order_filled_date DATETIME, order_update_date DATETIME""",
}
PRESENT = {
    "trades": WITH_ORDERS["trades"].replace("sell_reason", "exit_reason").replace("buy_tag", "enter_tag")
    + """, base_currency VARCHAR, stake_currency VARCHAR, trading_mode VARCHAR, leverage FLOAT,
        is_short BOOLEAN, liquidation_price FLOAT, interest_rate FLOAT, funding_fees FLOAT,
        realized_profit FLOAT, amount_precision FLOAT, contract_size FLOAT,
        max_stake_amount FLOAT, record_version INTEGER""",
    "orders": WITH_ORDERS["orders"]
    + """, average FLOAT, stop_price FLOAT, ft_fee_base FLOAT, funding_fee FLOAT, ft_amount FLOAT,
        ft_price FLOAT, ft_cancel_reason VARCHAR, ft_order_tag VARCHAR""",
}

TRADE = {
    "id": 1,
    "exchange": "kraken",
    "pair": "ETH/USDT",
    "is_open": 0,
    "fee_open": 0.001,
    "fee_close": 0.002,
    "open_rate": 2000.0,
    "close_rate": 2100.0,
    "close_profit": 0.0468,
    "close_profit_abs": 93.8,
    "stake_amount": 2000.0,
    "amount": 1.0,
    "open_date": "2023-05-01 10:00:00.123456",
    "close_date": "2023-05-01 11:00:00.000000",
    "stop_loss": 1800.0,
    "exit_reason": "roi",
    "enter_tag": "dip",
    "strategy": "S",
    "trading_mode": "SPOT",
    "leverage": 1.0,
    "is_short": 0,
}
"""A closed trade in the columns of the present."""


def order(number: int, side: str, amount: float, price: float, **changed: Any) -> dict[str, Any]:
    """A filled order of trade 1, an hour after the one before."""
    filled_at = f"2023-05-01 {9 + number:02}:00:00.000000"
    return {
        "id": number,
        "ft_trade_id": 1,
        "ft_order_side": side,
        "side": side,
        "ft_pair": "ETH/USDT",
        "ft_is_open": 0,
        "order_id": f"o{number}",
        "status": "closed",
        "price": price,
        "average": price,
        "amount": amount,
        "filled": amount,
        "order_date": filled_at,
        "order_filled_date": filled_at,
    } | changed


def write_database(
    path: Path, schema: dict[str, str], *, wal: bool = False, **rows: list[dict[str, Any]]
) -> Path:
    """A database with those rows of `trades` and `orders`; what its age has no column for is left out."""
    with closing(sqlite3.connect(path)) as database:
        if wal:
            database.execute("PRAGMA journal_mode = wal")
        for table, columns in schema.items():
            database.execute(f"CREATE TABLE {table} ({columns})")
            known = {column[1] for column in database.execute(f"PRAGMA table_info({table})")}
            for row in rows.get(table, []):
                taken = {name: value for name, value in row.items() if name in known}
                marks = ", ".join("?" * len(taken))
                database.execute(
                    f"INSERT INTO {table} ({', '.join(taken)}) VALUES ({marks})", list(taken.values())
                )
        database.commit()
    return path
