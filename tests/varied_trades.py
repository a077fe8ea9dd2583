"""Trades of all kinds as a fleet would leave them, by the thousand, and bots that go on making them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from tests.archived_trades import closed_trade
from tests.loose_trades import buy, entry
from tests.trade_builders import fill_fields
from tradepool import TradePool
from tradepool.clock import now_us

_DAY_US = 86_400 * 1_000_000
_MARKETS = ("spot", "margin", "linear", "inverse")
_SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
_HOUR_S = 3600


def varied_trades(count: int, users: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """`count` trades of `users` users: every market, side, kind of fee and state; some name others."""
    draw = random.Random(seed)
    last: dict[str, str] = {}
    for number in range(count):
        user_id = f"user {draw.randrange(users)}"
        trade = _varied(draw, f"{seed}-{number}") | {"user_id": user_id, "trade_id": f"t-{seed}-{number}"}
        if user_id in last and draw.random() < 0.1:
            trade["related_trade_id"] = last[user_id]
        last[user_id] = trade["trade_id"]
        yield trade


def trade_on(pool: TradePool, user_id: str, number: int) -> None:
    """One more round trip of the user, step by step, with tokens held for it; every third stays open."""
    trade_id = pool.add_trade(buy(user_id=user_id, idempotency_key=f"{user_id}-{number}")).trade_id
    pool.update_available_tokens(user_id, {"USDT": 1000}, account_id="bots")
    held = pool.reserve_tokens(user_id, "USDT", 100, trade_id, _HOUR_S, account_id="bots")
    pool.add_fill(trade_id, entry(f"{trade_id}/1", "0.5", order_id=trade_id))
    pool.add_fill(trade_id, entry(f"{trade_id}/2", "0.5", fee="0.1", order_id=trade_id))
    if number % 3:
        pool.close_trade(trade_id, "101", amount="0.4")
        pool.close_trade(trade_id, "102")
    pool.settle_tokens(held.reservation_id, 99)


def add_live_and_archived(pool: TradePool, trades: Iterable[dict[str, Any]]) -> None:
    """The trades, round trips of four users beside them, and four of two users that are in the archive."""
    pool.add_trades(list(trades))
    for number in range(6):
        trade_on(pool, f"user {number % 4}", number)
    for number in range(4):
        closed_trade(pool, f"user {number % 2}", days_ago=20 + number, trade_id=f"old {number}")
    pool.archive_closed_trades()


def _varied(draw: random.Random, name: str) -> dict[str, Any]:
    market = draw.choice(_MARKETS)
    side = "buy" if market == "spot" else draw.choice(("buy", "sell"))
    contract = {"contract_size": draw.choice((1, 10))} if market == "inverse" else {}
    at = now_us() - draw.randrange(6 * _DAY_US)
    trade = buy(
        market=market,
        side=side,
        symbol=draw.choice(_SYMBOLS),
        amount="2",
        price=str(draw.randrange(50, 150)),
        exchange=draw.choice(("kraken", "mexc")),
        created_at=at,
        account_id=draw.choice(("default", "second")),
        **contract,
    )
    if draw.random() < 0.5:
        trade["idempotency_key"] = f"key {name}"
    return trade | _state(draw, name, at, trade)


def _state(draw: random.Random, name: str, at: int, trade: dict[str, Any]) -> dict[str, Any]:
    kind = draw.choice(("pending", "submitted", "rejected", "cancelled", "filled", "fills", "closed", "told"))
    if kind == "told":
        return {"status": "completed", "pnl": str(draw.randrange(-9, 9)), "closed_at": at + 9}
    if kind not in {"fills", "closed"}:
        return {"status": kind}
    cuts = sorted({0, 200, *(draw.randrange(1, 200) for _ in range(draw.randrange(3)))})
    entries = [
        _fill(draw, f"{name}/{i}", "entry", (b - a) / 100, at, trade)
        for i, (a, b) in enumerate(pairwise(cuts))
    ]
    if kind == "fills":
        return {"fills": entries}
    fee = {} if draw.random() < 0.5 else {"fee": "0.25"}
    out = fill_fields(f"{name}/x", "exit", "1.5", str(draw.randrange(50, 150)), at=at + 10, **fee)
    return {"fills": [*entries, out]}


def _fill(
    draw: random.Random, fill_id: str, role: str, amount: float, at: int, trade: dict[str, Any]
) -> dict[str, Any]:
    fee = draw.choice(
        (
            {},
            {"fee": "0.5"},
            {"fee": "-0.1"},
            {"fee": "0.001", "fee_currency": trade["symbol"].partition("/")[0]},
            {"fee": "0.01", "fee_currency": "BNB", "fee_price": "300"},
        )
    )
    return fill_fields(fill_id, role, f"{amount:.2f}", trade["price"], at=at, order_id=f"o-{fill_id}", **fee)
