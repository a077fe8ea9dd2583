"""All trades of one user as his summary's statistics see them, brought up to date trade by trade."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from decimal import Decimal
from typing import TypeVar

from tradepool.model.counters import ALL_SOURCES
from tradepool.model.facts import Fact
from tradepool.model.fold import Fold, Statistics

__all__ = ["UserFold"]

_Place = tuple[str, str]
"""A source and a settlement currency."""
_Key = TypeVar("_Key", bound=Hashable)


class UserFold:
    """A fold for each source and currency, and for all sources mixed once these were asked for.

    What it says does not depend on the order in which trades came, nor on what they were before.
    """

    def __init__(self, facts: Collection[Fact] = ()) -> None:
        self._folds: dict[_Place, Fold] = {}
        self._mixed: dict[str, Fold] | None = None
        self.change(facts)

    @property
    def size(self) -> int:
        """How many trades and slices it remembers: what its memory grows with."""
        return sum(fold.size for fold in (*self._folds.values(), *(self._mixed or {}).values()))

    def get(self, trade_id: str) -> Fact | None:
        """The trade as it is counted; None for one that is not."""
        found = (fold.get(trade_id) for fold in self._folds.values())
        return next((fact for fact in found if fact is not None), None)

    def change(self, facts: Collection[Fact], *, dropped: Iterable[str] = ()) -> None:
        """Count these trades, no two of one id, as they are now, and the `dropped` ones no more."""
        names = dict.fromkeys((*dropped, *(fact.trade_id for fact in facts))) if self._folds else ()
        gone = [fact for trade_id in names if (fact := self.get(trade_id)) is not None]
        for place, some in _grouped(gone, _place_of).items():
            self._folds[place].remove(some)
        for place, some in _grouped(facts, _place_of).items():
            self._folds.setdefault(place, Fold()).add(some)
        if self._mixed is not None:
            for currency, some in _grouped(gone, _currency_of).items():
                self._mixed[currency].remove(some)
            self._mix(facts, self._mixed)

    def trade_count(self, source: str) -> int:
        """How many trades of `source` (or "all") are counted."""
        return sum(fold.trade_count for (of, _), fold in self._folds.items() if source in (of, ALL_SOURCES))

    def statistics(self, source: str, starting_balances: Mapping[str, Decimal]) -> dict[str, Statistics]:
        """The statistics of `source` (or "all") by currency; balances are the deposits unless given."""
        if source == ALL_SOURCES:
            folds = self._all_sources()
        else:
            folds = {currency: fold for (of, currency), fold in self._folds.items() if of == source}
        return {
            currency: fold.statistics(starting_balances.get(currency))
            for currency, fold in folds.items()
            if fold.trade_count
        }

    def _all_sources(self) -> dict[str, Fold]:
        if self._mixed is None:
            self._mixed = {}
            for fold in self._folds.values():
                self._mix(fold.facts, self._mixed)
        return self._mixed

    def _mix(self, facts: Iterable[Fact], mixed: dict[str, Fold]) -> None:
        for currency, some in _grouped(facts, _currency_of).items():
            mixed.setdefault(currency, Fold()).add(some)


def _place_of(fact: Fact) -> _Place:
    return fact.labels.source, fact.labels.currency


def _currency_of(fact: Fact) -> str:
    return fact.labels.currency


def _grouped(facts: Iterable[Fact], key_of: Callable[[Fact], _Key]) -> dict[_Key, list[Fact]]:
    found: dict[_Key, list[Fact]] = defaultdict(list)
    for fact in facts:
        found[key_of(fact)].append(fact)
    return found
