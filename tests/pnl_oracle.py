"""An oracle for marks in plain fractions, which shares no code with tradepool.pnl."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tradepool.pnl.marks import Marks
from tradepool.pnl.position import Position

__all__ = ["expected_figures", "figures", "position"]

UNITS = 10**8


def position(trade_id: str, amount: str, cost: str = "0", **fields: Any) -> Position:
    """A position with every field that a test does not care about filled in."""
    known = {"user_id": "ann", "currency": "USDT", "symbol": "BTC/USDT", "market": "spot"} | fields
    for field in ("contract_size", "fee_rate"):
        if field in known:
            known[field] = Decimal(known[field])
    return Position(trade_id=trade_id, amount=Decimal(amount), cost=Decimal(cost), **known)


def expected_figures(positions: Iterable[Position], prices: Mapping[str, Decimal]) -> dict[str, Any]:
    """What marking must give, all money in 10⁻⁸."""
    users: dict[Any, list[int]] = defaultdict(lambda: [0] * 6)
    symbols: dict[Any, list[int]] = defaultdict(lambda: [0] * 4)
    totals: dict[str, int] = defaultdict(int)
    rows, missing = {}, set()
    for row in positions:
        if row.symbol not in prices:
            missing.add(row.symbol)
            _add(users[row.user_id, row.currency], [0, 0, 0, 0, 0, 1])
            continue
        value, unrealised = _marked(row, Fraction(prices[row.symbol]))
        rows[row.trade_id] = unrealised
        totals[row.currency] += unrealised
        _add(
            users[row.user_id, row.currency],
            [unrealised, max(unrealised, 0), abs(value), unrealised > 0, 1, 0],
        )
        long_value, short_value = (abs(value), 0) if row.amount > 0 else (0, -abs(value))
        _add(symbols[row.symbol, row.currency], [unrealised, long_value, short_value, 1])
    return {
        "users": dict(users),
        "symbols": dict(symbols),
        "totals": dict(totals),
        "rows": rows,
        "missing": tuple(sorted(missing)),
    }


def figures(marks: Marks) -> dict[str, Any]:
    """The figures of `marks` in the shape of `expected_figures`."""
    return {
        "users": {
            key: [
                _units(user.unrealised),
                _units(user.profit),
                _units(user.exposure),
                user.winners,
                user.count,
                user.unmarked,
            ]
            for key, user in marks.users.items()
        },
        "symbols": {
            key: [_units(each.unrealised), _units(each.long_value), _units(each.short_value), each.count]
            for key, each in marks.symbols.items()
        },
        "totals": {currency: _units(total) for currency, total in marks.totals.items()},
        "rows": {trade_id: _units(unrealised) for trade_id, unrealised in (marks.rows or {}).items()},
        "missing": marks.missing,
    }


def _marked(row: Position, price: Fraction) -> tuple[int, int]:
    quantity = Fraction(row.amount) * Fraction(row.contract_size)
    # round() of a Fraction is half to even.
    value = round((-quantity / price if row.market == "inverse" else quantity * price) * UNITS)
    fee = round(abs(value) * Fraction(row.fee_rate))
    return value, value - fee - round(Fraction(row.cost) * UNITS)


def _units(money: Decimal) -> int:
    units = Fraction(money) * UNITS
    assert units.denominator == 1
    return int(units)


def _add(sums: list[int], addends: list[int]) -> None:
    sums[:] = [total + addend for total, addend in zip(sums, addends, strict=True)]
