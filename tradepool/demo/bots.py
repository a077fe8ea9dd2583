"""Simulated trading bots: each buys in parts and mostly sells again, on prices that walk at random."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from decimal import Decimal

from tradepool.client import PoolClient
from tradepool.clock import now_us
from tradepool.pool import TradePool

__all__ = ["Bots"]

_BOTS = 4
_ROUND_TRIPS_PER_S = 40.0
"""Of each bot, on average."""
_CLOSED_SHARE = 0.7
_STEP = 0.002
_PRICES_EVERY_S = 1.0
_FEE_RATE = Decimal("0.001")
_PLACES = Decimal("1e-10")
_LOT = Decimal("1e-8")
_START_PRICES = {
    "BTC/USDT": Decimal(64000),
    "ETH/USDT": Decimal(3100),
    "SOL/USDT": Decimal(150),
    "XRP/USDT": Decimal("0.52"),
    "ADA/BTC": Decimal("0.00000612"),
    "PEPE/USDT": Decimal("0.0000085"),
}
_STAKE = {"USDT": Decimal(1), "BTC": Decimal("0.00001")}
"""What a bot counts its stakes in, by quote currency."""


class Bots:
    """A few users' bots on threads of their own, trading from `start` to `stop`."""

    def __init__(self, client: PoolClient, pool: TradePool, seed: int = 1) -> None:
        self._client = client
        self._pool = pool
        self._market = _Market(seed)
        self._stop = threading.Event()
        self._bots = [_Bot(f"bot-{number}", client, self._market, seed + number) for number in range(_BOTS)]
        self._threads = [threading.Thread(target=self._feed_prices, name="prices", daemon=True)]
        self._threads += [
            threading.Thread(target=bot.run, args=(self._stop,), name=bot.user_id, daemon=True)
            for bot in self._bots
        ]
        self.refused: tuple[str, ...] = ()

    @property
    def users(self) -> list[str]:
        """Whose bots trade."""
        return [bot.user_id for bot in self._bots]

    @property
    def trade_ids(self) -> list[str]:
        """The trades that the client has accepted so far."""
        return [trade_id for bot in self._bots for trade_id in list(bot.trade_ids)]

    @property
    def is_done(self) -> bool:
        """Bots never tire."""
        return False

    def start(self) -> None:
        """Begin to trade."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop trading; open trades stay open."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _feed_prices(self) -> None:
        while not self._stop.is_set():
            self._pool.set_prices(self._market.step())
            self._stop.wait(_PRICES_EVERY_S)


class _Market:
    """Prices that every bot sees."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._prices = dict(_START_PRICES)
        self._lock = threading.Lock()

    def step(self) -> dict[str, Decimal]:
        """Move every price once; the new prices."""
        with self._lock:
            for symbol, price in self._prices.items():
                drift = Decimal(repr(1 + self._random.gauss(0, _STEP)))
                self._prices[symbol] = (price * drift).quantize(_PLACES)
            return dict(self._prices)

    def pick(self, chance: random.Random) -> tuple[str, Decimal]:
        """A symbol and its price now."""
        with self._lock:
            symbol = chance.choice(sorted(self._prices))
            return symbol, self._prices[symbol]


class _Bot:
    """One user's bot."""

    def __init__(self, user_id: str, client: PoolClient, market: _Market, seed: int) -> None:
        self.user_id = user_id
        self.trade_ids: list[str] = []
        self._client = client
        self._market = market
        self._chance = random.Random(seed)

    def run(self, stop: threading.Event) -> None:
        self._client.update_available_tokens(self.user_id, {"USDT": "250000", "BTC": "1.5"})
        while not stop.wait(self._chance.expovariate(_ROUND_TRIPS_PER_S)):
            self._round_trip()

    def _round_trip(self) -> None:
        symbol, price = self._market.pick(self._chance)
        amount = (self._chance.randint(20, 900) * _STAKE[symbol.partition("/")[2]] / price).quantize(_LOT)
        trade_id = self._client.add_trade(
            {
                "user_id": self.user_id,
                "exchange": "simulated",
                "symbol": symbol,
                "side": "buy",
                "amount": amount,
                "price": price,
                "source": "paper",
                "strategy": self._chance.choice(("momentum", "mean-reversion")),
                "signals": {"rsi": self._chance.choice((-1, 0, 1))},
            }
        )
        self.trade_ids.append(trade_id)
        for fill in self._entry_fills(trade_id, amount, price):
            self._client.add_fill(trade_id, fill, user_id=self.user_id)
        if self._chance.random() < _CLOSED_SHARE:
            self._close(trade_id, amount, price)

    def _close(self, trade_id: str, amount: Decimal, entry_price: Decimal) -> None:
        price = (entry_price * Decimal(repr(1 + self._chance.gauss(0.0005, 0.01)))).quantize(_PLACES)
        self._client.close_trade(trade_id, price, fee=(amount * price * _FEE_RATE).quantize(_PLACES))

    def _entry_fills(self, trade_id: str, amount: Decimal, price: Decimal) -> Iterator[dict[str, object]]:
        """The entry in two fills that add up to `amount`, or in one when it is too small to halve."""
        half = (amount / 2).quantize(_LOT)
        for part, quantity in enumerate((half, amount - half)):
            if quantity:
                yield {
                    "fill_id": f"{trade_id}/{part}",
                    "role": "entry",
                    "amount": quantity,
                    "price": price,
                    "fee": (quantity * price * _FEE_RATE).quantize(_PLACES),
                    "at": now_us(),
                }
