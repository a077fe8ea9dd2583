"""Trades to measure with: filled orders as a bot sends them, about 400 bytes of JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tradepool.clock import now_us

__all__ = ["PRICES", "Trades"]

PRICES = {"BTC/USDT": 65_000.0, "ETH/USDT": 3_200.0, "SOL/USDT": 145.0, "XRP/USDT": 0.52, "DOGE/USDT": 0.12}
_PER_USER = 200
_USERS = 500


class Trades:
    """Ever more trades, the same ones in each run; 200 in a row are of one user."""

    def __init__(self) -> None:
        self._random = random.Random(1)  # noqa: S311 - measurements need the same trades again, not secrets
        self._made = 0

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """The next `count` of them."""
        for _ in range(count):
            symbol, price = self._random.choice(list(PRICES.items()))
            user = self._made // _PER_USER % _USERS
            self._made += 1
            yield {
                "user_id": f"user-{user}",
                "symbol": symbol,
                "side": self._random.choice(("buy", "sell")),
                "amount": f"{self._random.uniform(10, 1000) / price:.8f}",
                "price": f"{price * self._random.uniform(0.9, 1.1):.8f}",
                "timestamp": now_us(),
                "order_type": "market",
                "exchange": "bench",
                "strategy": self._random.choice(("rsi", "trend", "momentum")),
                "signals": {"rsi": self._random.randint(-1, 1), "combined": self._random.randint(-1, 1)},
                "market_conditions": {"avg_volatility": round(self._random.random(), 4), "trend": "flat"},
                "status": "filled",
                "source": "paper",
            }
