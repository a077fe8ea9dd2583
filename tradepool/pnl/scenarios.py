"""Scenarios: hypothetical prices of symbols, given outright or as a shock to today's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tradepool.errors import InvalidTrade
from tradepool.pnl.position import EXACT, in_range

__all__ = ["REST", "SCENARIOS_MAX", "Scenario", "ScenarioPrices"]

REST = "*"
"""Stands, among the shocks, for every symbol that the scenario does not name."""
SCENARIOS_MAX = 10_000
"""Scenarios of one stress test; each takes 32 bytes a symbol, and as many for each user at work."""

_DIGITS = 12
# Bound once: they run for every symbol in every scenario.
_add, _multiply, _quantize = EXACT.add, EXACT.multiply, EXACT.quantize
_LARGEST_FALL = Decimal(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens to prices. A symbol that it neither prices nor shocks keeps its base price.

    A shock moves the base price to base · (1 + shock), rounded half to even at the 12th significant
    digit of the base price, or at the base price's own last digit where that is finer.
    """

    prices: Mapping[str, Decimal] = field(default_factory=dict)
    """The price by symbol, above 0."""
    shocks: Mapping[str, Decimal] = field(default_factory=dict)
    """The relative change by symbol, above −1; under `REST` that of all symbols not named."""


class ScenarioPrices:
    """The prices of symbols over some scenarios, each scenario checked once.

    Raises: InvalidTrade naming the scenario and the symbol whose price is not a finite Decimal above 0,
        whose shock is not one above −1, or which has both; also when there are no scenarios or too many.
    """

    def __init__(self, base: Mapping[str, Decimal], scenarios: Mapping[str, Scenario]) -> None:
        if not 0 < len(scenarios) <= SCENARIOS_MAX:
            cure = f"give 1 to {SCENARIOS_MAX} of them"
            raise InvalidTrade(
                "not a number of scenarios", field="scenarios", value=len(scenarios), cure=cure
            )
        for name, scenario in scenarios.items():
            _check(name, scenario)
        self._base = base
        self._names = tuple(scenarios)
        self._scenarios = [(scenario, scenario.shocks.get(REST)) for scenario in scenarios.values()]

    def named(self) -> set[str]:
        """The symbols that some scenario names."""
        return {
            symbol for each, _ in self._scenarios for part in (each.prices, each.shocks) for symbol in part
        } - {REST}

    def of(self, symbol: str) -> list[Decimal]:
        """The base price of `symbol`, which it must have, and its price in every scenario.

        Raises: InvalidTrade naming the scenario in which a shock leaves nothing of the price.
        """
        base = self._base[symbol]
        last_digit = _last_digit(base)
        prices = [base]
        for scenario, rest in self._scenarios:
            price = scenario.prices.get(symbol)
            if price is None:
                shock = scenario.shocks.get(symbol, rest)
                price = base if shock is None else _shocked(base, shock, last_digit)
            prices.append(price)
        if not all(prices):
            raise self._leaves_nothing(symbol, prices)
        return prices

    def _leaves_nothing(self, symbol: str, prices: Sequence[Decimal]) -> InvalidTrade:
        place = next(place for place, price in enumerate(prices) if not price) - 1
        scenario, rest = self._scenarios[place]
        return InvalidTrade(
            f"leaves nothing of a price of {prices[0]}",
            field=f"scenarios[{self._names[place]}].shocks[{symbol}]",
            value=scenario.shocks.get(symbol, rest),
            cure="give a smaller fall, or a price",
        )


def _check(name: str, scenario: Scenario) -> None:
    for symbol, price in scenario.prices.items():
        if not in_range(price) or price <= 0:
            raise InvalidTrade(
                "not a price",
                field=f"scenarios[{name}].prices[{symbol}]",
                value=price,
                cure="give a finite Decimal above 0",
            )
    for symbol, shock in scenario.shocks.items():
        if not in_range(shock) or shock <= _LARGEST_FALL:
            raise InvalidTrade(
                "not a relative change",
                field=f"scenarios[{name}].shocks[{symbol}]",
                value=shock,
                cure="give a finite Decimal above -1: -0.1 is a fall by a tenth",
            )
        if symbol in scenario.prices:
            raise InvalidTrade(
                "the symbol has a price as well",
                field=f"scenarios[{name}].shocks[{symbol}]",
                value=shock,
                cure="give the one or the other",
            )


def _last_digit(base: Decimal) -> Decimal:
    """One unit of the place that shocked prices are rounded at."""
    exponent = base.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(1).scaleb(min(exponent, base.adjusted() - _DIGITS + 1))


def _shocked(base: Decimal, shock: Decimal, last_digit: Decimal) -> Decimal:
    return _quantize(_multiply(base, _add(shock, 1)), last_digit)
