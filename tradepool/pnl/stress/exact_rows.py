"""The net positions of a stress test that no kernel is trusted with, marked in exact arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from tradepool.pnl.decimal_rows import mark_row
from tradepool.pnl.stress.netting import NetRow
from tradepool.pnl.stress.results import Single
from tradepool.pnl.stress.risk import Tail, tail_of
from tradepool.pnl.stress.scenarios import ScenarioPrices

__all__ = ["Cost", "ExactResults", "ExactRows", "Key"]

Key = tuple[str, str]
"""(user, currency)."""


class Cost(NamedTuple):
    """What a group was entered at, 10⁻⁸, and of how many trades."""

    units: int
    trades: int


class ExactRows:
    """The net positions that no kernel is trusted with, marked one by one in exact arithmetic."""

    def __init__(self, rows: Iterable[NetRow], prices: ScenarioPrices) -> None:
        self._prices = prices
        self._prices_of: dict[str, list[Decimal]] = {}
        self._rows: dict[Key, list[NetRow]] = defaultdict(list)
        for row in rows:
            self._rows[row.user_id, row.currency].append(row)

    def __contains__(self, key: Key) -> bool:
        """Whether this user has some in this currency."""
        return key in self._rows

    def __iter__(self) -> Iterator[Key]:
        """The users and currencies that have some."""
        return iter(self._rows)

    def unrealised(self, key: Key) -> list[int]:
        """The unrealised PnL of those of `key`, 10⁻⁸, at the base prices and in every scenario."""
        marked = [
            [mark_row(row.figures, price).unrealised for price in self._prices_in_scenarios(row.symbol)]
            for row in self._rows[key]
        ]
        return [sum(column) for column in zip(*marked, strict=True)]

    def trades(self, key: Key) -> int:
        """How many trades are in those of `key`."""
        return sum(row.count for row in self._rows[key])

    def _prices_in_scenarios(self, symbol: str) -> list[Decimal]:
        if symbol not in self._prices_of:
            self._prices_of[symbol] = self._prices.of(symbol).decimals()
        return self._prices_of[symbol]


@dataclass(slots=True)
class ExactResults:
    """The groups that have exact rows, 10⁻⁸."""

    singles: dict[Key, Single] = field(default_factory=dict)
    changes: dict[Key, Sequence[int]] = field(default_factory=dict)
    """By scenario, of the groups it was asked for."""
    totals: dict[str, list[int]] = field(default_factory=dict)
    """By currency, the unrealised PnL of the exact rows alone, at the base prices and in every scenario."""
    trades: dict[str, int] = field(default_factory=dict)
    """By currency, the trades in the exact rows alone."""

    def add(
        self, key: Key, rows: ExactRows, values: Sequence[int], cost: Cost, tail: Tail, *, keep: bool
    ) -> None:
        """Add the group `key`, of which what is not in its exact rows has these `values` and `cost`."""
        unrealised = rows.unrealised(key)
        together = [value + own for value, own in zip(values, unrealised, strict=True)]
        changes = [value - together[0] for value in together[1:]]
        trades = rows.trades(key)
        self.singles[key] = Single(together[0] - cost.units, cost.trades + trades, tail_of(changes, tail))
        if keep:
            self.changes[key] = changes
        self._add_total(key[1], unrealised, trades)

    def absorb(self, other: ExactResults) -> None:
        """Add the groups of `other`, which are others than these."""
        self.singles |= other.singles
        self.changes |= other.changes
        for currency, unrealised in other.totals.items():
            self._add_total(currency, unrealised, other.trades[currency])

    def _add_total(self, currency: str, unrealised: Sequence[int], trades: int) -> None:
        total = self.totals.get(currency) or [0] * len(unrealised)
        self.totals[currency] = [value + own for value, own in zip(total, unrealised, strict=True)]
        self.trades[currency] = self.trades.get(currency, 0) + trades
