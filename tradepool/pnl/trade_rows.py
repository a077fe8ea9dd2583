"""Which row of the columns each trade has, cheap to keep through a compaction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["TradeRows"]


class TradeRows:
    """Trade id → row, by way of a slot that a trade keeps while its row moves.

    The columns carry each row's slot, so a compaction moves numbers only: no string is touched.
    """

    def __init__(self) -> None:
        self._slot_of: dict[str, int] = {}
        self._trade_ids: list[str] = []
        self._rows: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        """How many trades have a row."""
        return len(self._slot_of)

    def __contains__(self, trade_id: object) -> bool:
        """Whether the trade has a row."""
        return trade_id in self._slot_of

    def find(self, trade_id: str) -> int | None:
        """The row of the trade, None if it has none."""
        slot = self._slot_of.get(trade_id)
        return None if slot is None else self._rows[slot]

    def trade_id(self, slot: int) -> str:
        """The trade in `slot`."""
        return self._trade_ids[slot]

    def add(self, trade_id: str, row: int) -> int:
        """Give a trade without a row this one; returns its slot."""
        assert trade_id not in self._slot_of
        if self._free:
            slot = self._free.pop()
            self._trade_ids[slot], self._rows[slot] = trade_id, row
        else:
            slot = len(self._rows)
            self._trade_ids.append(trade_id)
            self._rows.append(row)
        self._slot_of[trade_id] = slot
        return slot

    def remove(self, trade_id: str) -> None:
        """Forget a trade that has a row; its slot may go to another."""
        self._free.append(self._slot_of.pop(trade_id))

    def relocate(self, slots: npt.NDArray[np.int32]) -> None:
        """Take over new rows: row i is that of the trade in `slots[i]`."""
        rows = np.zeros(len(self._rows), np.int64)
        rows[slots] = np.arange(len(slots))
        self._rows = rows.tolist()
