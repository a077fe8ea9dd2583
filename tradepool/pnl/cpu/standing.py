"""The sums of the last tick, which a tick that changes little adds its differences to."""

from __future__ import annotations

import sys

import numpy as np

from tradepool.pnl.book.columns import Ints
from tradepool.pnl.sums import Limbs, Sums
from tradepool.pnl.tables import Tables

__all__ = ["Standing"]

_OWN_REFERENCES = 2
"""What Python counts where nobody else holds an array: ours, and that of the call that asks."""


class Standing:
    """Sums in the form that compiled loops add to; every sum by group fits int64.

    What `sums` handed out stays as it was: as long as somebody holds any of it, `make_room` goes on with
    a copy.
    """

    def __init__(self, sums: Sums, tables: Tables) -> None:
        """Those of `sums`, which come from `tables`."""
        columns = [limbs.narrowed() for limbs in (sums.unrealised, sums.profit, sums.exposure)]
        self.by_group: Ints = np.stack([*columns, sums.winners], axis=1)
        """Unrealised, profit, exposure and winners, a line for each group."""
        signs, value, unrealised = tables.value_signs, sums.code_value, sums.code_unrealised
        self.code_low: Ints = np.stack([unrealised.low, signs * value.low], axis=1)
        """Low limbs of unrealised and |value|, a line for each code."""
        self.code_high: Ints = np.stack([unrealised.high, signs * value.high], axis=1)
        """High limbs of the same."""

    def make_room(self, *, groups: int, codes: int) -> None:
        """Get ready to be added to, with lines for that many groups and codes."""
        if sys.getrefcount(self.by_group) > _OWN_REFERENCES:
            self.by_group = self.by_group.copy()
        self.by_group = _lengthened(self.by_group, groups)
        self.code_low, self.code_high = _lengthened(self.code_low, codes), _lengthened(self.code_high, codes)

    def sums(self, tables: Tables) -> Sums:
        """What they came to at `tables`."""
        unrealised, profit, exposure, winners = self.by_group.T
        signs = tables.value_signs
        return Sums(
            unrealised=Limbs(unrealised),
            profit=Limbs(profit),
            exposure=Limbs(exposure),
            winners=winners,
            code_value=Limbs(signs * self.code_low[:, 1], signs * self.code_high[:, 1]),
            code_unrealised=Limbs(self.code_low[:, 0].copy(), self.code_high[:, 0].copy()),
            rows=None,
        )


def _lengthened(lines: Ints, count: int) -> Ints:
    missing = count - len(lines)
    if missing <= 0:
        return lines
    return np.concatenate([lines, np.zeros((missing, lines.shape[1]), np.int64)])
