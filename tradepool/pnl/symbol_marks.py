"""The marks of all symbols, added up from lanes and single rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.book.lanes import Lanes
from tradepool.pnl.decimal_rows import SymbolTally
from tradepool.pnl.position import from_units
from tradepool.pnl.sums import Sums

__all__ = ["SymbolMark", "SymbolMarks", "symbol_tallies"]

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolMark:
    """The open positions in one symbol, in one settlement currency."""

    unrealised: Decimal
    long_value: Decimal
    """Σ |value| of the longs."""
    short_value: Decimal
    """−Σ |value| of the shorts."""
    count: int


class SymbolMarks(Mapping[_Key, SymbolMark]):
    """The marks by (symbol, currency), made on access."""

    def __init__(self, tallies: Mapping[_Key, SymbolTally]) -> None:
        self.tallies = tallies
        """The same in 10⁻⁸."""

    def __getitem__(self, key: _Key) -> SymbolMark:
        tally = self.tallies[key]
        return SymbolMark(
            unrealised=from_units(tally.unrealised),
            long_value=from_units(tally.long_value),
            short_value=from_units(tally.short_value),
            count=tally.count,
        )

    def __iter__(self) -> Iterator[_Key]:
        return iter(self.tallies)

    def __len__(self) -> int:
        return len(self.tallies)

    def totals(self) -> dict[str, Decimal]:
        """Unrealised PnL by currency."""
        totals: dict[str, int] = {}
        for (_, currency), tally in self.tallies.items():
            totals[currency] = totals.get(currency, 0) + tally.unrealised
        return {currency: from_units(units) for currency, units in totals.items()}


def symbol_tallies(
    lanes: Lanes, counts: Ints, sums: Sums, singles: Mapping[_Key, SymbolTally]
) -> dict[_Key, SymbolTally]:
    """The lanes of each symbol, with `counts` marked rows, and its single rows together."""
    tallies = {key: replace(tally) for key, tally in singles.items()}
    value, unrealised = sums.code_value.tolist(), sums.code_unrealised.tolist()
    for number, (lane, count) in enumerate(zip(lanes.keys, counts.tolist(), strict=True)):
        if not count:
            continue
        # The kernel's value of an inverse long is negative.
        sign = -1 if lane.inverse else 1
        tally = tallies.setdefault((lane.symbol, lane.currency), SymbolTally())
        tally.unrealised += unrealised[2 * number] + unrealised[2 * number + 1]
        tally.long_value += sign * value[2 * number]
        tally.short_value += sign * value[2 * number + 1]
        tally.count += count
    return tallies
