"""Which row of the columns each trade has, cheap to keep through a compaction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tradepool.pnl.book.columns import grown
from tradepool.pnl.book.trade_ids import TradeIds

__all__ = ["NO_ROW", "Numbers", "TradeRows"]

NO_ROW = -1

_GONE_MIN = 4096

Numbers = npt.NDArray[np.int32]


class TradeRows:
    """Trade id → row, by way of a slot that a trade keeps while its row moves.

    The columns carry each row's slot, so a compaction moves numbers only. A trade that loses its row keeps
    its slot, and may come back; once those are half of the slots, a compaction forgets them.
    """

    def __init__(self, ids: TradeIds | None = None, rows: Numbers | None = None) -> None:
        """`rows` has the row of each of `ids`, and maybe room for more; it is kept and written to."""
        self.ids = ids or TradeIds()
        """The trade of each slot."""
        self._rows = np.zeros(0, np.int32) if rows is None else rows
        self._size = len(self.ids)
        self._count = int(np.count_nonzero(self.rows != NO_ROW))

    def __len__(self) -> int:
        """How many trades have a row."""
        return self._count

    @property
    def rows(self) -> Numbers:
        """The row of each slot, NO_ROW for none."""
        return self._rows[: self._size]

    def find(self, trade_id: str) -> int:
        """The row of the trade, NO_ROW if it has none."""
        slot = self.ids.find(trade_id)
        return NO_ROW if slot is None else int(self._rows[slot])

    def find_all(self, trade_ids: Sequence[str]) -> Numbers:
        """The row of each trade, NO_ROW for those that have none."""
        slots = self.ids.find_all(trade_ids)
        rows = np.full(len(slots), NO_ROW, np.int32)
        rows[slots >= 0] = self._rows[slots[slots >= 0]]
        return rows

    def slots(self, trade_ids: Sequence[str]) -> Numbers:
        """The slot of each of these trades, which are all different; a new one if it has none."""
        slots = self.ids.numbers(trade_ids)
        size = len(self.ids)
        if size > len(self._rows):
            self._rows = grown(self._rows, self._size, size)
        self._rows[self._size : size] = NO_ROW
        self._size = size
        return slots

    def add(self, slots: Numbers, first_row: int) -> None:
        """Give the trades in `slots`, which have no row, the rows from this one on."""
        self._rows[slots] = np.arange(first_row, first_row + len(slots), dtype=np.int32)
        self._count += len(slots)

    def remove(self, slots: Numbers) -> None:
        """Take the rows of the trades in `slots`, which have one."""
        self._rows[slots] = NO_ROW
        self._count -= len(slots)

    def relocate(self, slots: Numbers) -> None:
        """Take over new rows: row i is that of the trade in `slots[i]`.

        When slots are forgotten, `slots` is changed in place.
        """
        if self._size - len(slots) > max(_GONE_MIN, len(slots)):
            kept = np.sort(slots)
            self.ids.keep(kept)
            slots[:] = kept.searchsorted(slots)
            self._size = len(slots)
        self._rows[: self._size] = NO_ROW
        self._rows[slots] = np.arange(len(slots), dtype=np.int32)
