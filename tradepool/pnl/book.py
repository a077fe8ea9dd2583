"""The open positions of a pool, kept ready for marking."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tradepool.pnl.columns import DEAD_CODE, Columns, Ints, Row
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.pnl.lanes import FeeClasses, Lane, Lanes, Numbered, lots_of
from tradepool.pnl.position import EXACT, Figures, Position, figures_of
from tradepool.pnl.tables import COST_MAX
from tradepool.pnl.trade_rows import TradeRows

__all__ = ["Book"]

_COMPACT_ROWS_MIN = 4096
_COMPACT_SHARE = 10
_REMOVED_REMEMBERED_MAX = 100_000


class Book:
    """Positions by trade id, as columns sorted by (user, currency).

    One owner changes and marks it; not thread-safe. Every change carries a version, an int ≥ 0 and
    < 2⁶³ that grows with each change of a trade (its own version, or its place in a stream): a position
    whose trade is already known at that version or a later one is skipped, so a redelivered batch
    changes nothing. A removed trade comes back only with a later version; the last 100 000 removals
    are remembered for that.

    A changed position is rewritten in place, a new one goes to an unsorted tail, a removed one leaves a
    tombstone; once tail and tombstones are a tenth of the rows, the book is compacted.
    """

    def __init__(self, *, compact_rows_min: int = _COMPACT_ROWS_MIN) -> None:
        self.columns = Columns()
        self.groups: Numbered[tuple[str, str]] = Numbered()
        self.lanes = Lanes()
        self.fees = FeeClasses()
        self.cost_max = 0
        """Bound of |cost| over the columns, in 10⁻⁸."""
        self.decimal_rows: dict[str, DecimalRow] = {}
        """The positions that do not fit the columns, by trade id."""
        self._decimal_versions: dict[str, int] = {}
        self._trade_rows = TradeRows()
        self._removed: dict[str, int] = {}
        self._compact_rows_min = compact_rows_min

    @classmethod
    def from_positions(cls, positions: Iterable[Position]) -> Book:
        """A compacted book of `positions`.

        Raises: InvalidTrade, as `upsert`.
        """
        book = cls()
        book.upsert(positions, version=0)
        book.compact()
        return book

    def __len__(self) -> int:
        """How many positions are in the book."""
        return len(self._trade_rows) + len(self.decimal_rows)

    def __contains__(self, trade_id: object) -> bool:
        """Whether the trade has a position in the book."""
        return trade_id in self._trade_rows or trade_id in self.decimal_rows

    def upsert(self, positions: Iterable[Position], version: int) -> int:
        """Add or replace positions by trade id; returns how many were not skipped.

        Raises: InvalidTrade naming the trade and field. The positions before that one were taken, which
            does not hurt: sent again, they are skipped.
        """
        taken = sum(self._place(position, version) for position in positions)
        self._compact_if_due()
        return taken

    def remove(self, trade_ids: Iterable[str]) -> int:
        """Take positions out; returns how many of the trades had one."""
        taken = sum(self._drop(trade_id, remember=True) for trade_id in trade_ids)
        self._compact_if_due()
        return taken

    def symbols(self) -> set[str]:
        """The symbols a mark needs prices of."""
        lanes = zip(self.lanes.keys, self.lanes.counts, strict=True)
        in_columns = {lane.symbol for lane, count in lanes if count}
        return in_columns | {row.symbol for row in self.decimal_rows.values()}

    def trade_id(self, index: int) -> str:
        """The trade of the live row at `index` of the columns."""
        return self._trade_rows.trade_id(int(self.columns.slot[index]))

    def decimal_row(self, index: int) -> DecimalRow:
        """The live row at `index` of the columns as an exact row."""
        row = self.columns.row(index)
        lane = self.lanes.keys[row.code >> 1]
        user_id, currency = self.groups.keys[row.group]
        figures = Figures(
            quantity=EXACT.scaleb(row.lots, -lane.exponent),
            cost_units=row.cost,
            fee_rate=EXACT.scaleb(self.fees.rates[row.fee_class], -7),
            inverse=lane.inverse,
        )
        return DecimalRow(self.trade_id(index), user_id, currency, lane.symbol, figures)

    def compact(self) -> None:
        """Drop tombstones, sort the tail in, forget groups and lanes without positions."""
        group_map = self.groups.compact()
        lane_map = self.lanes.compact(keep_first=1)
        self.columns.compact(group_map, lane_map)
        self._trade_rows.relocate(self.columns.slot)
        self.lanes.lots_max = _lots_max(self.columns, len(self.lanes.keys)).tolist()
        self.cost_max = int(np.abs(self.columns.cost).max(initial=0))

    def _version(self, trade_id: str) -> int:
        row = self._trade_rows.find(trade_id)
        if row is not None:
            return self.columns.version(row)
        return self._decimal_versions.get(trade_id, self._removed.get(trade_id, -1))

    def _place(self, position: Position, version: int) -> bool:
        trade_id = position.trade_id
        if self._version(trade_id) >= version:
            return False
        figures = figures_of(position)
        row = self._encode(position, figures)
        if row is None:
            self._drop(trade_id)
            self._place_single(position, figures, version)
        elif not self._rewrite(trade_id, row, version):
            self._drop(trade_id)
            self._append(trade_id, row, version)
        self._removed.pop(trade_id, None)
        return True

    def _encode(self, position: Position, figures: Figures) -> Row | None:
        """The position as a row of the columns; None if some figure does not fit."""
        fee_class = self.fees.number(figures.fee_rate)
        sized = lots_of(figures.quantity)
        if fee_class is None or sized is None or abs(figures.cost_units) > COST_MAX:
            return None
        exponent, lots = sized
        lane = self.lanes.number(Lane(position.symbol, position.currency, figures.inverse, exponent))
        group = self.groups.number((position.user_id, position.currency))
        return Row(group, 2 * lane + (lots < 0), lots, figures.cost_units, fee_class)

    def _place_single(self, position: Position, figures: Figures, version: int) -> None:
        trade_id, user_id = position.trade_id, position.user_id
        self.decimal_rows[trade_id] = DecimalRow(
            trade_id, user_id, position.currency, position.symbol, figures
        )
        self._decimal_versions[trade_id] = version

    def _rewrite(self, trade_id: str, row: Row, version: int) -> bool:
        """Give a trade that has a row in the same group its new figures there; False if it has none."""
        index = self._trade_rows.find(trade_id)
        if index is None:
            return False
        former = self.columns.row(index)
        if former.group != row.group:
            return False
        if former == row:
            self.columns.restamp(index, version)
        else:
            self._count(former, -1)
            self._count(row, 1)
            self.columns.overwrite(index, row, version)
        return True

    def _append(self, trade_id: str, row: Row, version: int) -> None:
        slot = self._trade_rows.add(trade_id, self.columns.size)
        self.columns.append(row, version, slot)
        self._count(row, 1)

    def _drop(self, trade_id: str, *, remember: bool = False) -> bool:
        """Take a trade out, wherever it is; False if it is not in the book."""
        if trade_id not in self:
            return False
        if remember:
            self._remember_removed(trade_id)
        index = self._trade_rows.find(trade_id)
        if index is None:
            del self.decimal_rows[trade_id], self._decimal_versions[trade_id]
        else:
            self._count(self.columns.row(index), -1)
            self.columns.kill(index)
            self._trade_rows.remove(trade_id)
        return True

    def _remember_removed(self, trade_id: str) -> None:
        self._removed[trade_id] = self._version(trade_id)
        if len(self._removed) > _REMOVED_REMEMBERED_MAX:
            del self._removed[next(iter(self._removed))]

    def _count(self, row: Row, change: int) -> None:
        """Count a row in or out, and keep the bounds of what is in the columns."""
        self.groups.counts[row.group] += change
        self.lanes.counts[row.code >> 1] += change
        if change > 0:
            self.lanes.note(row.code >> 1, row.lots)
            self.cost_max = max(self.cost_max, abs(row.cost))

    def _compact_if_due(self) -> None:
        if self.columns.stale > max(self._compact_rows_min, self.columns.size // _COMPACT_SHARE):
            self.compact()


def _lots_max(columns: Columns, lanes: int) -> Ints:
    lots_max = np.zeros(lanes, np.int64)
    live = columns.code != DEAD_CODE
    np.maximum.at(lots_max, columns.code[live] >> 1, np.abs(columns.lots[live]))
    return lots_max
