"""What a set of equally likely changes says about risk: worst case, value at risk, expected shortfall.

Of n changes let L(1) ≥ … ≥ L(n) be the losses, a loss being minus the change, c the confidence and
t = n · (1 − c), which need not be whole. Both figures are those of the empirical distribution, without
interpolation; they are losses, so a negative one is a gain.

* Value at risk is the smallest loss l with P(L ≤ l) ≥ c, which is L(⌊t⌋ + 1). (McNeil, Frey and
  Embrechts, Quantitative Risk Management, Princeton: the generalised inverse of the loss distribution.)
* Expected shortfall is the mean of the worst share 1 − c of the distribution, of which the last loss may
  count in part: (L(1) + … + L(⌊t⌋) + (t − ⌊t⌋) · L(⌊t⌋ + 1)) / t, rounded half to even at 10⁻⁸. (Acerbi
  and Tasche, On the coherence of expected shortfall, Journal of Banking & Finance 26, 2002.)

With t < 1, fewer scenarios than it takes to see the tail, both are the worst loss; with t = 1 expected
shortfall still is, and value at risk is the second largest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradepool.errors import InvalidTrade
from tradepool.pnl.book.columns import Ints
from tradepool.pnl.decimal_rows import half_even
from tradepool.pnl.position import in_range
from tradepool.pnl.sums import LIMB_BITS, LIMB_MASK

__all__ = ["Tail", "TailColumns", "TailFigures", "tail_of", "tails_of"]


class TailFigures(NamedTuple):
    """The lower end of one distribution of changes, 10⁻⁸."""

    worst: int
    """Which change is the smallest, the first of equal ones."""
    worst_change: int
    marginal: int
    """The change next to the ⌊t⌋ smallest: minus the value at risk."""
    whole: int
    """The sum of the ⌊t⌋ smallest."""


class TailColumns(NamedTuple):
    """`TailFigures` of many distributions; `whole` is high · 2³² + low."""

    worst: npt.NDArray[np.intp]
    worst_change: Ints
    marginal: Ints
    whole_low: Ints
    whole_high: Ints

    @classmethod
    def joined(cls, parts: Iterable[TailColumns]) -> TailColumns:
        """Those of all parts, in a row."""
        return cls(*map(np.concatenate, zip(_NO_TAILS, *parts, strict=True)))

    def figures(self, index: int) -> TailFigures:
        """Those of one."""
        whole = (int(self.whole_high[index]) << LIMB_BITS) + int(self.whole_low[index])
        return TailFigures(
            int(self.worst[index]), int(self.worst_change[index]), int(self.marginal[index]), whole
        )


_NO_TAILS = TailColumns(*np.zeros((5, 0), np.int64))


class Tail:
    """The tail of `count` equally likely changes beyond `confidence`.

    Raises: InvalidTrade when the confidence is not a Decimal between 0 and 1, both excluded.
    """

    def __init__(self, count: int, confidence: Decimal) -> None:
        if not in_range(confidence) or not 0 < confidence < 1:
            raise InvalidTrade(
                "not a confidence", field="confidence", value=confidence, cure="give one like 0.95"
            )
        self.count = count
        self._size = count * (1 - Fraction(confidence))
        self.whole = int(self._size)
        """⌊t⌋, below `count`."""

    def expected_shortfall(self, figures: TailFigures) -> int:
        """In 10⁻⁸, half to even."""
        partial = self._size - self.whole
        lost = -(figures.whole + partial * figures.marginal) / self._size
        return half_even(lost.numerator, lost.denominator)


def tail_of(changes: Sequence[int], tail: Tail) -> TailFigures:
    """The tail of one distribution of any size of numbers."""
    ordered = sorted(changes)
    return TailFigures(changes.index(ordered[0]), ordered[0], ordered[tail.whole], sum(ordered[: tail.whole]))


def tails_of(changes: Ints, tail: Tail) -> TailColumns:
    """The tail of every row of an int64 matrix."""
    worst = changes.argmin(axis=1)
    ordered = np.partition(changes, tail.whole, axis=1)
    beyond = ordered[:, : tail.whole]
    return TailColumns(
        worst,
        np.take_along_axis(changes, worst[:, None], axis=1)[:, 0],
        ordered[:, tail.whole].copy(),
        (beyond & LIMB_MASK).sum(axis=1),
        (beyond >> LIMB_BITS).sum(axis=1),
    )
