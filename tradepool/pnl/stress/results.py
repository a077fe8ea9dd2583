"""What a stress test comes to, by currency and by user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.position import from_units
from tradepool.pnl.stress.risk import Tail, TailColumns, TailFigures

__all__ = ["Risk", "Single", "SingleColumns", "StressTest", "UserRisks", "risk_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """The open positions of one user, or of all, in one settlement currency."""

    base: Decimal
    """Unrealised PnL at the base prices: Σ value − exit fee − cost."""
    worst_scenario: str
    """Where `worst_change` happens; the first of equal ones."""
    worst_change: Decimal
    """The smallest change of the unrealised PnL against `base`, of all scenarios."""
    value_at_risk: Decimal
    """A loss, so positive where money is lost; see risk.py."""
    expected_shortfall: Decimal
    """The mean loss in the tail, rounded half to even at 10⁻⁸; see risk.py."""
    count: int
    """How many trades are in it."""
    changes: Mapping[str, Decimal] | None
    """The change by scenario: of all users together, and of the users it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StressTest:
    """The figures of one stress test, exact to 10⁻⁸; different currencies are never added."""

    at: int
    """The time of the base prices, µs UTC, as given."""
    confidence: Decimal
    scenarios: tuple[str, ...]
    fleet: Mapping[str, Risk]
    """All users together, by currency."""
    users: Mapping[tuple[str, str], Risk]
    """By (user, currency); worked out on access, so keep what you read twice."""
    missing: tuple[str, ...]
    """Symbols of open positions without a base price; those positions are in none of the figures."""
    stale: Mapping[str, float] = field(default_factory=dict)
    """Symbols of open positions whose base price is older than it should be → its age in seconds."""
    unheld: tuple[str, ...]
    """Symbols that a scenario names and no open position has: a misspelt one is among them."""

    def to_dict(self, users: Iterable[str] = ()) -> dict[str, Any]:
        """The figures of the fleet, and of `users`, as plain values; money stays Decimal."""
        return {
            "at": self.at,
            "confidence": self.confidence,
            "scenarios": list(self.scenarios),
            "fleet": {currency: asdict(risk) for currency, risk in self.fleet.items()},
            "users": {user_id: self._by_currency(user_id) for user_id in users},
            "missing": list(self.missing),
            "stale": dict(self.stale),
            "unheld": list(self.unheld),
        }

    def _by_currency(self, user_id: str) -> dict[str, dict[str, Any]]:
        keys = ((user_id, currency) for currency in self.fleet)
        return {key[1]: asdict(self.users[key]) for key in keys if key in self.users}


class Single(NamedTuple):
    """The figures of one distribution, 10⁻⁸."""

    base: int
    trades: int
    tail: TailFigures


class SingleColumns(NamedTuple):
    """The figures of many distributions."""

    base: Sequence[int]
    trades: Ints
    tails: TailColumns

    def single(self, number: int) -> Single:
        """Those of one."""
        return Single(self.base[number], int(self.trades[number]), self.tails.figures(number))


class UserRisks(Mapping[tuple[str, str], Risk]):
    """The risk of all users, made on access: a stress test costs nothing for users that nobody reads."""

    def __init__(
        self,
        keys: Sequence[tuple[str, str]],
        columns: SingleColumns,
        singles: Mapping[tuple[str, str], Single],
        changes: Mapping[tuple[str, str], Sequence[int] | Ints],
        tail: Tail,
        names: Sequence[str],
    ) -> None:
        """`keys` are those of the columns; what is in `singles` stands for its columns."""
        self._keys = keys
        self._columns = columns
        self._singles = singles
        self._changes = changes
        self._tail = tail
        self._names = names

    def __getitem__(self, key: tuple[str, str]) -> Risk:
        single = self._singles.get(key) or self._columns.single(self._numbers[key])
        return risk_of(single, self._tail, self._names, self._changes.get(key))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from self._numbers
        yield from (key for key in self._singles if key not in self._numbers)

    def __len__(self) -> int:
        return len(self._numbers.keys() | self._singles.keys())

    @cached_property
    def _numbers(self) -> dict[tuple[str, str], int]:
        return {key: number for number, key in enumerate(self._keys)}


def risk_of(single: Single, tail: Tail, names: Sequence[str], changes: Sequence[int] | Ints | None) -> Risk:
    """The risk of one distribution; `changes` are by scenario, in the order of `names`."""
    figures = single.tail
    by_name = None
    if changes is not None:
        by_name = {name: from_units(int(change)) for name, change in zip(names, changes, strict=True)}
    return Risk(
        base=from_units(single.base),
        worst_scenario=names[figures.worst],
        worst_change=from_units(figures.worst_change),
        value_at_risk=from_units(-figures.marginal),
        expected_shortfall=from_units(tail.expected_shortfall(figures)),
        count=single.trades,
        changes=by_name,
    )
