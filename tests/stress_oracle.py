"""An oracle for stress tests in plain fractions, which shares no code with tradepool.pnl."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tradepool.pnl.position import Position
from tradepool.pnl.stress.results import Risk
from tradepool.pnl.stress.scenarios import Scenario

__all__ = ["expected_risks", "figures_of", "net_key", "price_in", "shortfall", "value_at_risk"]

UNITS = 10**8


def expected_risks(
    positions: Iterable[Position],
    prices: Mapping[str, Decimal],
    scenarios: Mapping[str, Scenario],
    confidence: str,
) -> dict[str, Any]:
    """Risk by user and by currency in the shape of `figures_of`."""
    parts: dict[Any, list[Position]] = defaultdict(list)
    for row in positions:
        if row.symbol in prices:
            parts[net_key(row)].append(row)
    users: dict[Any, list[int]] = {}
    fleet: dict[str, list[int]] = {}
    counts: dict[Any, int] = defaultdict(int)
    for rows in parts.values():
        first = rows[0]
        at = [Fraction(prices[first.symbol])]
        at += [price_in(scenario, first.symbol, prices[first.symbol]) for scenario in scenarios.values()]
        values = [_unrealised(rows, price) for price in at]
        for sums, key in ((users, (first.user_id, first.currency)), (fleet, first.currency)):
            sums[key] = [a + b for a, b in zip(sums.get(key, [0] * len(values)), values, strict=True)]
            counts[key] += len(rows)
    return {
        part: {key: _risk(values, list(scenarios), confidence, counts[key]) for key, values in sums.items()}
        for part, sums in (("users", users), ("fleet", fleet))
    }


def figures_of(risk: Risk) -> list[Any]:
    """The figures of `risk` in units of 10⁻⁸."""
    money = (risk.base, risk.worst_change, risk.value_at_risk, risk.expected_shortfall)
    units = [Fraction(each) * UNITS for each in money]
    assert all(each.denominator == 1 for each in units)
    return [risk.worst_scenario, risk.count, *map(int, units)]


def net_key(row: Position) -> tuple[Any, ...]:
    """What a row is netted by."""
    quantity = Fraction(row.amount) * Fraction(row.contract_size)
    rate = Fraction(row.fee_rate)
    exponents = (e for e in (8, 12, 18, 4, 0) if (quantity * 10**e).denominator == 1)
    lane = next((e for e in exponents if abs(quantity * 10**e) < 2**63), None)
    fits_fees = abs(rate) <= 1 and (rate * 10**7).denominator == 1
    if not fits_fees or abs(round(Fraction(row.cost) * UNITS)) > 2**62 - 1:
        lane = None
    is_short = bool(rate) and quantity < 0
    return row.user_id, row.currency, row.symbol, row.market == "inverse", rate, is_short, lane


def price_in(scenario: Scenario, symbol: str, base: Decimal) -> Fraction:
    """The price of `symbol` in `scenario`."""
    if symbol in scenario.prices:
        return Fraction(scenario.prices[symbol])
    shock = scenario.shocks.get(symbol, scenario.shocks.get("*", Decimal(0)))
    moved = Fraction(base) * (1 + Fraction(shock))
    finest, unit = (
        Fraction(10) ** min(base.as_tuple().exponent, base.adjusted() + 1 - digits) for digits in (15, 12)
    )
    return moved if (moved / finest).denominator == 1 else round(moved / unit) * unit


def value_at_risk(changes: Sequence[int], confidence: str) -> int:
    """The smallest loss that is enough with a probability of `confidence`, straight from its definition."""
    losses = [-change for change in changes]
    share = Fraction(confidence)
    return min(
        loss for loss in losses if Fraction(sum(each <= loss for each in losses), len(losses)) >= share
    )


def shortfall(changes: Sequence[int], confidence: str) -> Fraction:
    """The mean loss over the worst share 1 − confidence, each change having the same probability."""
    share = left = 1 - Fraction(confidence)
    mean = Fraction(0)
    for change in sorted(changes):
        probability = min(Fraction(1, len(changes)), left)
        mean -= change * probability
        left -= probability
    return mean / share


def _unrealised(rows: Sequence[Position], price: Fraction) -> int:
    quantity = sum((Fraction(row.amount) * Fraction(row.contract_size) for row in rows), Fraction(0))
    value = round((-quantity / price if rows[0].market == "inverse" else quantity * price) * UNITS)
    fee = round(abs(value) * Fraction(rows[0].fee_rate))
    return value - fee - sum(round(Fraction(row.cost) * UNITS) for row in rows)


def _risk(values: Sequence[int], names: Sequence[str], confidence: str, count: int) -> list[Any]:
    changes = [value - values[0] for value in values[1:]]
    worst = min(range(len(changes)), key=lambda place: changes[place])
    var, es = value_at_risk(changes, confidence), round(shortfall(changes, confidence))
    return [names[worst], count, values[0], changes[worst], var, es]
