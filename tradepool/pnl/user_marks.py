"""The marks of all users as columns, read one by one as Decimals or whole as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.decimal_rows import UserTally
from tradepool.pnl.position import from_units
from tradepool.pnl.sums import Limbs

__all__ = ["UserColumns", "UserMark", "UserMarks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMark:
    """The open positions of one user in one settlement currency."""

    unrealised: Decimal
    """Σ value − exit fee − cost."""
    profit: Decimal
    """Σ of the positive ones among them."""
    exposure: Decimal
    """Σ |value|."""
    winners: int
    """How many positions are above 0."""
    count: int
    """How many were marked."""
    unmarked: int
    """How many were not, for want of a price; they are in none of the figures above."""

    @classmethod
    def of(cls, tally: UserTally) -> UserMark:
        """The mark that `tally` comes to."""
        return cls(
            unrealised=from_units(tally.unrealised),
            profit=from_units(tally.profit),
            exposure=from_units(tally.exposure),
            winners=tally.winners,
            count=tally.count,
            unmarked=tally.unmarked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserColumns:
    """The figures of a book's groups (user, currency), money in 10⁻⁸, each column in order of the groups.

    Groups without positions are among them, with 0 in `count` and `unmarked`.
    """

    groups: Sequence[tuple[str, str]]
    """The book's own list, which may grow after the tick: the columns end where it did then."""
    unrealised: Limbs
    profit: Limbs
    exposure: Limbs
    winners: Ints
    count: Ints
    unmarked: Ints
    singles: Mapping[tuple[str, str], UserTally]
    """What comes on top from rows outside the columns, also of users whom the book has no group for."""


class UserMarks(Mapping[tuple[str, str], UserMark]):
    """The marks of all users, made on access: a tick costs nothing for users that nobody reads."""

    def __init__(self, columns: UserColumns) -> None:
        self.columns = columns
        """The same as arrays."""

    def __getitem__(self, key: tuple[str, str]) -> UserMark:
        return UserMark.of(self._tallies[key])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._tallies)

    def __len__(self) -> int:
        return len(self._tallies)

    @cached_property
    def _tallies(self) -> dict[tuple[str, str], UserTally]:
        columns = self.columns
        figures = zip(
            columns.unrealised.tolist(),
            columns.profit.tolist(),
            columns.exposure.tolist(),
            columns.winners.tolist(),
            columns.count.tolist(),
            columns.unmarked.tolist(),
            strict=True,
        )
        # The book may have appended groups since the tick.
        tallies = {
            key: UserTally(*of_group)
            for key, of_group in zip(columns.groups, figures, strict=False)
            if of_group[-2] or of_group[-1]
        }
        for key, single in columns.singles.items():
            tallies.setdefault(key, UserTally()).absorb(single)
        return tallies
