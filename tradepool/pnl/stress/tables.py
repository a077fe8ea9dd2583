"""M/D of every lane in every scenario, and which net positions a matrix kernel may be trusted with.

It is the arithmetic of tables.py, with two differences. M and D come from prices on one common scale per
symbol, so they need not be in lowest terms. And M/D is divided by numpy, which rounds M and D to float64
first: two roundings more than a mark has, so only half the lots are trusted to a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import Floats, Ints
from tradepool.pnl.book.lanes import Lane
from tradepool.pnl.position import UNIT_PLACES
from tradepool.pnl.stress.netting import Net
from tradepool.pnl.stress.scenarios import ScaledPrices, ScenarioPrices
from tradepool.pnl.tables import Ratio, lots_max_narrow, lots_max_wide

__all__ = ["ScenarioTables", "build_scenario_tables"]

_INT64_MAX = 2**63 - 1
_GROUP_BITS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioTables:
    """What a matrix kernel needs: 2-d arrays by (lane, scenario), of which scenario 0 is the base."""

    multiplier: Ints
    divisor: Ints
    quotient: Floats
    """M/D in float64."""
    reciprocal: Floats
    """1/D in float64."""
    priced: npt.NDArray[np.bool_]
    """By lane, whether it has a base price."""
    narrow_max: Ints
    wide_max: Ints
    """By lane, the largest |lots| that each kernel divides exactly in every scenario; −1 without a price."""
    value_max: Floats
    """By lane, a bound of the value of one lot in any scenario, 10⁻⁸."""

    def fitting(self, net: Net) -> npt.NDArray[np.bool_]:
        """The net positions that a kernel may value and add up by group without leaving int64."""
        size = np.abs(net.lots)
        is_fitting = size <= self.wide_max[net.lane]
        # A fee is at most the value, and a change the difference of two values less their fees.
        reach = np.where(is_fitting, 4 * (size * self.value_max[net.lane] + 1), 0.0)
        by_group = np.bincount(net.group, reach, len(net.groups))
        fitting: npt.NDArray[np.bool_] = is_fitting & (by_group[net.group] < 2.0**_GROUP_BITS)
        return fitting


def build_scenario_tables(net: Net, prices: ScenarioPrices, priced: set[str], count: int) -> ScenarioTables:
    """The tables of the lanes of `net` whose symbol is `priced`, over the base and `count` scenarios.

    Raises: InvalidTrade as `ScenarioPrices.of`.
    """
    shape = (len(net.lanes), count + 1)
    multiplier, divisor = np.zeros(shape, np.int64), np.ones(shape, np.int64)
    narrow_max, wide_max = np.full(shape[0], -1), np.full(shape[0], -1)
    scaled: dict[str, ScaledPrices] = {}
    is_priced = np.zeros(shape[0], np.bool_)
    for number in np.unique(net.lane).tolist():
        lane = net.lanes[number]
        if lane.symbol not in priced:
            continue
        if lane.symbol not in scaled:
            scaled[lane.symbol] = prices.of(lane.symbol)
        is_priced[number] = True
        tops, bottoms = multiplier[number], divisor[number]
        narrow_max[number], wide_max[number] = _fill(tops, bottoms, lane, scaled[lane.symbol])
    quotient = multiplier / divisor
    return ScenarioTables(
        multiplier=multiplier,
        divisor=divisor,
        quotient=quotient,
        reciprocal=1 / divisor,
        priced=is_priced,
        narrow_max=narrow_max,
        wide_max=wide_max,
        value_max=np.abs(quotient).max(axis=1),
    )


def _fill(tops: Ints, bottoms: Ints, lane: Lane, scaled: ScaledPrices) -> tuple[int, int]:
    """Write M and D of a lane; the largest |lots| for the narrow and the wide kernel, 0 where none fits."""
    lowest, highest = min(scaled.units), max(scaled.units)
    if highest > _INT64_MAX:
        return 0, 0
    shift = UNIT_PLACES - lane.exponent + (scaled.places if lane.inverse else -scaled.places)
    up, down = 10 ** max(shift, 0), 10 ** max(-shift, 0)
    if lane.inverse:
        ends = Ratio(up, lowest * down), Ratio(up, highest * down)
    else:
        ends = Ratio(lowest * up, down), Ratio(highest * up, down)
    narrow, wide = (min(limit(end) for end in ends) // 2 for limit in (lots_max_narrow, lots_max_wide))
    if wide:
        units = np.array(scaled.units, np.int64)
        tops[:] = -up if lane.inverse else units * up
        bottoms[:] = units * down if lane.inverse else down
    return narrow, wide
