"""The falls of a running total of results, followed step by step; exact.

Amounts are in fine units (`counters.to_fine_units`), times in µs since 1970; what comes out is Decimal.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from tradepool.model.counters import from_fine_units
from tradepool.model.statistics import quotient

__all__ = ["Curve", "Dip", "Drawdown", "Fall", "drawdown"]


class Fall(NamedTuple):
    """From a peak of a running total to the lowest point after it, in fine units."""

    amount: int
    high: int
    high_at: int | None
    low_at: int


class Curve(NamedTuple):
    """A running total, sampled after each instant at which something was closed.

    Trades closed at one instant are one step, so that their order cannot change what it shows.
    """

    at: int = 0
    """The instant that may not be over yet."""
    total: int = 0
    high: int = 0
    high_at: int | None = None
    """None: the start is the peak."""
    deepest: int = 0
    """The deepest fall from that peak, and when it was deepest."""
    low_at: int = 0

    def after(self, times: Iterable[int], amounts: Iterable[int], falls: list[Fall]) -> Curve:
        """With what was closed next, in order; the falls that end in a new peak are added to `falls`."""
        last, total, high, high_at, deepest, low_at = self
        for at, amount in zip(times, amounts, strict=True):
            if at != last:
                if total > high:
                    if deepest:
                        falls.append(Fall(deepest, high, high_at, low_at))
                    high, high_at, deepest = total, last, 0
                elif high - total > deepest:
                    deepest, low_at = high - total, last
                last = at
            total += amount
        return Curve(last, total, high, high_at, deepest, low_at)

    def last_falls(self) -> list[Fall]:
        """The falls that `after` has not told of, once the last instant is over."""
        falls: list[Fall] = []
        end = self.after((self.at + 1,), (0,), falls)
        return [*falls, Fall(end.deepest, end.high, end.high_at, end.low_at)] if end.deepest else falls


class Dip(msgspec.Struct, frozen=True):
    """A fall of the running total from a peak to the lowest point after it.

    `high` and `low` are running totals of the results alone; `share` is `amount` over the balance at
    the peak (starting balance + high), None where no starting balance is known. `high_at` is None
    when the peak is the start itself.
    """

    amount: Decimal
    share: Decimal | None
    high: Decimal
    low: Decimal
    high_at: int | None
    low_at: int | None


class Drawdown(msgspec.Struct, frozen=True):
    """The deepest dip by amount and the deepest by share; they need not be the same.

    `by_share` is None without a starting balance.
    """

    by_amount: Dip
    by_share: Dip | None


_FLAT = Fall(0, 0, None, 0)


def drawdown(falls: Iterable[Fall], *, starting_balance: int | None = None) -> Drawdown:
    """The deepest of the falls of a `Curve`, as freqtrade's `calculate_max_drawdown` has them.

    The curve starts at zero (or at `starting_balance`, fine units, used only if it is above 0). Of equal
    falls the first counts; none at all is a dip of 0.
    """
    balance = starting_balance if starting_balance and starting_balance > 0 else None
    by_amount = by_share = _FLAT
    for fall in falls:
        if fall.amount > by_amount.amount:
            by_amount = fall
        # Shares, the amount over the balance at the peak, compare exactly as fractions.
        if balance and fall.amount * (balance + by_share.high) > by_share.amount * (balance + fall.high):
            by_share = fall
    return Drawdown(_dip(by_amount, balance), _dip(by_share, balance) if balance else None)


def _dip(fall: Fall, balance: int | None) -> Dip:
    share = None if balance is None else quotient(Decimal(fall.amount), Decimal(balance + fall.high))
    low = from_fine_units(fall.high - fall.amount)
    amount, high = from_fine_units(fall.amount), from_fine_units(fall.high)
    return Dip(amount, share, high, low, fall.high_at, fall.low_at if fall.amount else None)
