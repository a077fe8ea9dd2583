"""Results of closed trades in the order of closing, which may be entered and taken out anywhere.

What is a sum is kept as one. What depends on the order (runs, falls) is followed from a mark before the
first place that has changed, and mostly that is near the end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tradepool.model.drawdown import Curve, Fall
from tradepool.model.facts import Fact
from tradepool.model.labels import DAY_US
from tradepool.model.statistics import Moments, Streaks

__all__ = ["Course", "Extremes"]

_STRIDE = 256
"""Results from one mark to the next."""
_SORT_WITHIN = 64
"""How many times the results that enter must be there for each to be put in its place by itself."""


class Extremes:
    """The least and the greatest of numbers that may leave again."""

    def __init__(self, number_of: Callable[[Fact], int]) -> None:
        self._number_of = number_of
        self._found: tuple[int, int] | None = None

    def add(self, facts: Collection[Fact]) -> None:
        """More numbers."""
        if facts:
            found = self._extremes(facts)
            known = self._found or found
            self._found = min(found[0], known[0]), max(found[1], known[1])

    def remove(self, facts: Collection[Fact], rest: Collection[Fact]) -> None:
        """Numbers that were added leave; those of `rest` remain."""
        if facts and not {*self._extremes(facts)}.isdisjoint(self._found or ()):
            self._found = self._extremes(rest) if rest else None

    @property
    def least(self) -> int | None:
        """None of no numbers."""
        return self._found[0] if self._found else None

    @property
    def greatest(self) -> int | None:
        """None of no numbers."""
        return self._found[1] if self._found else None

    def _extremes(self, facts: Collection[Fact]) -> tuple[int, int]:
        numbers = [*map(self._number_of, facts)]
        return min(numbers), max(numbers)


class _Mark(NamedTuple):
    """How it stood before the result at `place`."""

    place: int
    streaks: Streaks
    curve: Curve
    falls: int
    """How many falls had ended."""


class Course:
    """Results of one kind: `amount_of` a closed trade in fine units, and what it counts as.

    `sign_of` is 1 for a win, -1 for a loss, 0 for a draw.
    """

    def __init__(self, amount_of: Callable[[Fact], int], sign_of: Callable[[Fact], int]) -> None:
        self._amount_of = amount_of
        self._sign_of = sign_of
        self._closed: list[Fact] = []
        self._falls: list[Fall] = []
        self._marks = [_Mark(0, Streaks(), Curve(), 0)]
        self.moments = Moments()
        self.extremes = Extremes(amount_of)
        self.by_day: dict[int, int] = {}
        """Total of each UTC day since 1970 that has one other than 0."""

    @property
    def closed(self) -> Sequence[Fact]:
        """The trades, in the order of closing; equal times by id."""
        return self._closed

    def add(self, facts: Sequence[Fact]) -> None:
        """More closed trades."""
        if not facts:
            return
        if len(facts) * _SORT_WITHIN < len(self._closed):
            for fact in facts:
                insort(self._closed, fact)
        else:
            self._closed += facts
            self._closed.sort()
        self._cut(bisect_left(self._closed, min(facts)))
        self.extremes.add(facts)
        self._count(facts, self.moments.add, 1)

    def remove(self, facts: Sequence[Fact]) -> None:
        """Trades that were added leave."""
        for fact in facts:
            place = bisect_left(self._closed, fact)
            del self._closed[place]
            self._cut(place)
        self.extremes.remove(facts, self._closed)
        self._count(facts, self.moments.remove, -1)

    def follow(self) -> tuple[Streaks, list[Fall]]:
        """The runs, and the falls of the running total."""
        mark = self._marks[-1]
        del self._falls[mark.falls :]
        while mark.place < len(self._closed):
            mark = self._next(mark)
            if mark.place < len(self._closed):
                self._marks.append(mark)
        return mark.streaks, [*self._falls, *mark.curve.last_falls()]

    def _next(self, mark: _Mark) -> _Mark:
        some = self._closed[mark.place : mark.place + _STRIDE]
        times = [fact.at for fact in some]
        curve = mark.curve.after(times, map(self._amount_of, some), self._falls)
        streaks = mark.streaks.after(map(self._sign_of, some))
        return _Mark(mark.place + len(some), streaks, curve, len(self._falls))

    def _cut(self, place: int) -> None:
        """From `place` on it is not what it was."""
        while self._marks[-1].place > place:
            self._marks.pop()

    def _count(self, facts: Sequence[Fact], count: Callable[[Collection[int]], None], sign: int) -> None:
        amounts, by_day = [*map(self._amount_of, facts)], self.by_day
        count(amounts)
        for fact, amount in zip(facts, amounts, strict=True):
            day = fact.at // DAY_US
            total = by_day.get(day, 0) + sign * amount
            if total:
                by_day[day] = total
            else:
                by_day.pop(day, None)
