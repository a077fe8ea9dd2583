"""The system of record for the trades of a fleet of trading bots.

    pool = TradePool.embedded("pool-data")      # everything in this process
    pool = TradePool.connect()                  # a running fleet, by its settings
    client = PoolClient.connect(spool="spool")  # what a bot uses

Public names load on first use, so that `tradepool.pnl` can be imported where only numpy is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tradepool import errors
    from tradepool.asynchronous import AsyncPoolClient, AsyncTradePool
    from tradepool.client import PoolClient
    from tradepool.model.fill import Fill
    from tradepool.model.ledger import Reservation, reservation_id
    from tradepool.model.receipt import Receipt
    from tradepool.model.trade import Trade
    from tradepool.pool import TradePool
    from tradepool.settings import Settings

__all__ = [
    "AsyncPoolClient",
    "AsyncTradePool",
    "Fill",
    "PoolClient",
    "Receipt",
    "Reservation",
    "Settings",
    "Trade",
    "TradePool",
    "__version__",
    "errors",
    "reservation_id",
]

__version__ = "0.1.0"

_HOMES = {
    "AsyncPoolClient": "tradepool.asynchronous",
    "AsyncTradePool": "tradepool.asynchronous",
    "Fill": "tradepool.model.fill",
    "PoolClient": "tradepool.client",
    "Receipt": "tradepool.model.receipt",
    "Reservation": "tradepool.model.ledger",
    "Settings": "tradepool.settings",
    "Trade": "tradepool.model.trade",
    "TradePool": "tradepool.pool",
    "reservation_id": "tradepool.model.ledger",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("tradepool.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tradepool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
