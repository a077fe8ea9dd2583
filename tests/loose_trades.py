"""Small round trips as a bot's dictionaries have them: one BTC at 100."""

from __future__ import annotations

from typing import Any

from tests.trade_builders import fill_fields, trade_fields


def buy(**fields: Any) -> dict[str, Any]:
    """Ann buys one BTC at 100; `fields` change that."""
    basic = {"exchange": "kraken", "symbol": "BTC/USDT", "amount": "1", "price": "100"}
    return trade_fields(**(basic | fields))


def entry(fill_id: str, amount: object = "1", price: object = "100", **fields: Any) -> dict[str, Any]:
    """The fill of that order."""
    return fill_fields(fill_id, "entry", amount, price, **fields)
