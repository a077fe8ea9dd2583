"""Scenarios: hypothetical prices of symbols, given outright or as a shock to today's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import repeat
from typing import NamedTuple

from tradepool.errors import InvalidTrade
from tradepool.pnl.decimal_rows import half_even
from tradepool.pnl.position import EXACT, in_range

__all__ = ["REST", "SCENARIOS_MAX", "ScaledPrices", "Scenario", "ScenarioPrices"]

REST = "*"
"""Stands, among the shocks, for every symbol that the scenario does not name."""
SCENARIOS_MAX = 10_000
"""Scenarios of one stress test; each takes 32 bytes a symbol, and as many for each user at work."""

_EXACT_DIGITS = 15
"""A product of nine digits of a price and six places of a shock is exact."""
_ROUNDED_DIGITS = 12
_LARGEST_FALL = Decimal(-1)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens to prices. A symbol that it neither prices nor shocks keeps its base price.

    A shock moves the base price to base · (1 + shock), exactly up to the 15th significant digit of the
    base price. What has more, as a shock makes that is a quotient itself, is rounded half to even at the
    12th, or at the base price's own last digit where that is finer.
    """

    prices: Mapping[str, Decimal] = field(default_factory=dict)
    """The price by symbol, above 0."""
    shocks: Mapping[str, Decimal] = field(default_factory=dict)
    """The relative change by symbol, above −1; under `REST` that of all symbols not named."""


class ScaledPrices(NamedTuple):
    """The prices of one symbol, the base price first, as integers of 10^-places."""

    units: list[int]
    places: int

    def at(self, places: int) -> ScaledPrices:
        """The same with more places."""
        power = 10 ** (places - self.places)
        return ScaledPrices([each * power for each in self.units], places)

    def reduced(self) -> ScaledPrices:
        """The same with as few places as all of them need."""
        common = math.gcd(*self.units, 10**self.places)
        digits = str(common)
        zeros = len(digits) - len(digits.rstrip("0"))
        power = 10**zeros
        return ScaledPrices([each // power for each in self.units], self.places - zeros) if zeros else self

    def decimals(self) -> list[Decimal]:
        """The prices themselves."""
        return [EXACT.scaleb(Decimal(each), -self.places) for each in self.units]


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
        self._shocks = [(each.shocks, each.shocks.get(REST, _ZERO)) for each in scenarios.values()]
        self._prices = [
            (place, each.prices) for place, each in enumerate(scenarios.values(), 1) if each.prices
        ]

    def named(self) -> set[str]:
        """The symbols that some scenario names."""
        return {symbol for part, _ in self._shocks for symbol in part}.union(
            *(part for _, part in self._prices)
        ) - {REST}

    def of(self, symbol: str) -> ScaledPrices:
        """The base price of `symbol`, which it must have, and its price in every scenario.

        Raises: InvalidTrade naming the scenario in which a shock leaves nothing of the price.
        """
        base = self._base[symbol]
        prices = _shocked(base, [shocks.get(symbol, rest) or _ZERO for shocks, rest in self._shocks])
        given = {place: of[symbol] for place, of in self._prices if symbol in of}
        finest = _places(given.values())
        if finest > prices.places:
            prices = prices.at(finest)
        for place, price in given.items():
            prices.units[place] = _integer(price, prices.places)
        if not all(prices.units):
            raise self._leaves_nothing(symbol, prices.units.index(0) - 1)
        return prices.reduced()

    def _leaves_nothing(self, symbol: str, number: int) -> InvalidTrade:
        shocks, rest = self._shocks[number]
        return InvalidTrade(
            f"leaves nothing of a price of {self._base[symbol]}",
            field=f"scenarios[{self._names[number]}].shocks[{symbol}]",
            value=shocks.get(symbol, rest),
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


def _shocked(base: Decimal, shocks: list[Decimal]) -> ScaledPrices:
    """`base`, and what each of `shocks` makes of it; the plain `_ZERO` for one that changes nothing."""
    own_places, shock_places = _places([base]), _places(shocks)
    units, one = _integer(base, own_places), 10**shock_places
    power = Decimal(one)
    # A product with a power of ten is exact, and faster than a shift.
    changes = map(int, map(EXACT.multiply, shocks, repeat(power)))
    moved = [units * one, *(units * (one + change) for change in changes)]
    places = own_places + shock_places
    if (finest := _kept_places(base, _EXACT_DIGITS)) < places:
        beyond, step = 10 ** (places - finest), 10 ** (places - _kept_places(base, _ROUNDED_DIGITS))
        moved = [half_even(each, step) * step if each % beyond else each for each in moved]
    return ScaledPrices(moved, places)


def _kept_places(base: Decimal, digits: int) -> int:
    """The decimal places up to so many digits of `base`, or to its last one; negative left of the point."""
    exponent = base.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(-exponent, digits - 1 - base.adjusted())


def _places(numbers: Iterable[Decimal]) -> int:
    """The decimal places of the finest; most numbers have the same, which is faster to see than to read."""
    before, finest = _ZERO, 0
    for number in numbers:
        if not number.same_quantum(before):
            before, finest = number, max(finest, -int(number.as_tuple().exponent))
    return finest


def _integer(number: Decimal, places: int) -> int:
    return int(EXACT.scaleb(number, places))
