"""Trades to send, and what the journal says of them afterwards."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

from tradepool.files.journal import JOURNAL_NAME
from tradepool.files.reading import read_lines
from tradepool.settings import Settings

__all__ = ["journaled_versions", "new_trade", "new_trades"]


def new_trade(**fields: object) -> dict[str, object]:
    """A spot buy of 2 BTC at 100, under an id of its own."""
    return {
        "trade_id": f"t-{uuid4()}",
        "user_id": "user-1",
        "symbol": "BTC/USDT",
        "side": "buy",
        "amount": "2",
        "price": "100",
        **fields,
    }


def new_trades(count: int, *, users: int = 20) -> list[dict[str, object]]:
    return [new_trade(user_id=f"user-{number % users}") for number in range(count)]


def journaled_versions(settings: Settings) -> Counter[tuple[str, int]]:
    """How often the journal holds each (record id, version)."""
    lines = read_lines(settings.data_dir / JOURNAL_NAME)
    return Counter((line.record_id, line.version) for line in lines)
