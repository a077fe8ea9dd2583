"""Figures that other projects publish for the same arithmetic, reduced to numbers; a case names its source.

`trades.json`: a case has the trade's terms, its `fills` as role, amount, price, fee and the fee's coin, and
what is known `after` each of them, by the names of `Trade`; some are `marked` at a price, some list `lots`.
`statistics.json`: results of trades closed a day apart (or after `days`) from a `balance` on, what to
`expect` by the names of `Summary`, and ratios `annualised` by the root of `periods`.
`differs` says where the other project counts otherwise, and what is right here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from tradepool.model.trade import Trade

__all__ = [
    "STATISTICS",
    "TRADES",
    "agrees",
    "disagreements",
    "fills_of",
    "ordered_first",
    "same_digits",
    "terms_of",
]

_FOLDER = Path(__file__).parent
_TERMS = ("market", "side", "leverage", "contract_size", "funding", "interest")


def _read(name: str) -> dict[str, dict[str, Any]]:
    return {case["id"]: case for case in json.loads((_FOLDER / name).read_text())}


TRADES = _read("trades.json")
"""The cases about one trade each, by id."""
STATISTICS = _read("statistics.json")
"""The cases about a run of trades, by id."""


def same_digits(computed: Decimal | None, published: str) -> bool:
    """Whether `computed` agrees to the published digits; some publishers cut off, some round."""
    if computed is None:
        return False
    last_digit = Decimal(1).scaleb(int(Decimal(published).as_tuple().exponent))
    return abs(computed - Decimal(published)) <= last_digit


def terms_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """What a bot says of the trade before anything is filled, but for the amount."""
    told = {name: case[name] for name in _TERMS if name in case}
    return {"user_id": case["id"], "symbol": case.get("symbol", "ETH/USDT")} | told


def ordered_first(case: Mapping[str, Any]) -> str:
    """The amount of the first order."""
    return str(case.get("amount", case["fills"][0][1]))


def fills_of(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fills as a bot sends them, a minute apart."""
    names = ("role", "amount", "price", "fee", "fee_currency")
    return [
        {"fill_id": f"{case['id']}-{index}", "at": 1_700_000_000_000_000 + index * 60_000_000}
        | dict(zip(names, fill, strict=False))
        for index, fill in enumerate(case["fills"])
    ]


def disagreements(trade: Trade, published: Mapping[str, Any]) -> list[str]:
    """Every published figure that the trade does not have, with the trade's own."""
    return [
        f"{name}: published {figure}, computed {getattr(trade, name)}"
        for name, figure in published.items()
        if not agrees(getattr(trade, name), figure)
    ]


def agrees(own: object, published: object) -> bool:
    """Whether a figure is as published: text to its digits, all else exactly."""
    if isinstance(published, dict):
        return own == {coin: Decimal(amount) for coin, amount in published.items()}
    if isinstance(own, Decimal) and isinstance(published, str):
        return same_digits(own, published)
    return own == published
