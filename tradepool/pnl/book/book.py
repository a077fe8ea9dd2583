"""The open positions of a pool, kept ready for marking."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import compress, islice, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from tradepool.errors import InvalidTrade
from tradepool.pnl.book.columns import Columns, Indices, Ints, Rows
from tradepool.pnl.book.digests import digests_by_part
from tradepool.pnl.book.encoding import encode
from tradepool.pnl.book.lanes import FeeClasses, Lanes, Numbered, Numbering
from tradepool.pnl.book.trade_rows import NO_ROW, Numbers, TradeRows
from tradepool.pnl.decimal_rows import DecimalRow
from tradepool.pnl.position import EXACT, Figures, Position, figure_columns, figures_of

__all__ = ["Book"]

_COMPACT_ROWS_MIN = 4096
_COMPACT_SHARE = 10
_REMOVED_REMEMBERED_MAX = 100_000
_BATCH_ROWS = 4096


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
        self.decimal_versions: dict[str, int] = {}
        """The version of each of them."""
        self.trade_rows = TradeRows()
        self.removed: dict[str, int] = {}
        """The version that removed trades had, oldest removal first."""
        self._compact_rows_min = compact_rows_min

    @classmethod
    def from_positions(cls, positions: Iterable[Position]) -> Book:
        """A compacted book of `positions`.

        Raises: InvalidTrade, as `upsert`.
        """
        book = cls()
        book.upsert(positions, version=0)
        if book.columns.stale:
            book.compact()
        return book

    def __len__(self) -> int:
        """How many positions are in the book."""
        return len(self.trade_rows) + len(self.decimal_rows)

    def __contains__(self, trade_id: object) -> bool:
        """Whether the trade has a position in the book."""
        return isinstance(trade_id, str) and self.version(trade_id) is not None

    def upsert(self, positions: Iterable[Position], version: int | Sequence[int]) -> int:
        """Add or replace positions by trade id; returns how many were not skipped.

        `version` is that of all, or one for each of them. A position in a batch of a hundred takes a tenth of
        the time it takes alone.

        Raises: InvalidTrade naming the trade and field. The positions before that one were taken, which
            does not hurt: sent again, they are skipped.
        """
        versions = repeat(version) if isinstance(version, int) else version
        taken = sum(self._take(*batch) for batch in _batches(positions, versions))
        self._compact_if_due()
        return taken

    def remove(self, trade_ids: Iterable[str]) -> int:
        """Take positions out; returns how many of the trades had one."""
        asked = list(dict.fromkeys(trade_ids))
        rows = self.trade_rows.find_all(asked)
        found = np.flatnonzero(rows != NO_ROW)
        versions = zip(found.tolist(), self.columns.versions(rows[found]).tolist(), strict=True)
        gone = {asked[index]: version for index, version in versions}
        gone |= {each: self.decimal_versions[each] for each in asked if each in self.decimal_rows}
        self._kill(rows[found])
        self._forget(gone)
        self.removed |= gone
        too_many = len(self.removed) - _REMOVED_REMEMBERED_MAX
        for trade_id in list(islice(self.removed, max(0, too_many))):
            del self.removed[trade_id]
        self._compact_if_due()
        return len(gone)

    def version(self, trade_id: str) -> int | None:
        """The version the trade's position was placed with; None if it has none."""
        row = self.trade_rows.find(trade_id)
        if row == NO_ROW:
            return self.decimal_versions.get(trade_id)
        return self.columns.version(row)

    def digests(self, part_of_group: npt.ArrayLike, parts: int) -> list[tuple[int, int]]:
        """A 64-bit digest and the count of the positions in each of `parts` parts.

        `part_of_group` has the part of each of `groups.keys`, a negative one to leave it out. Equal positions
        (trade, user, currency, symbol, inverse or not, quantity, cost, fee rate) give equal digests, whatever
        came before; versions do not count.
        """
        id_hashes, rows = self.trade_rows.ids.digests, list(self.decimal_rows.values())
        return digests_by_part(self.columns, id_hashes, rows, self._numbering, part_of_group, parts)

    def symbols(self) -> set[str]:
        """The symbols a mark needs prices of."""
        lanes = zip(self.lanes.keys, self.lanes.counts, strict=True)
        in_columns = {lane.symbol for lane, count in lanes if count}
        return in_columns | {row.symbol for row in self.decimal_rows.values()}

    def trade_ids(self, indices: Indices) -> list[str]:
        """The trades of the live rows at `indices` of the columns."""
        return self.trade_rows.ids.texts(self.columns.slot[indices])

    def decimal_row(self, index: int) -> DecimalRow:
        """The live row at `index` of the columns as an exact row."""
        (row,) = self.columns.rows(np.array([index])).tolist()
        lane = self.lanes.keys[row.code >> 1]
        user_id, currency = self.groups.keys[row.group]
        figures = Figures(
            quantity=EXACT.scaleb(row.lots, -lane.exponent),
            cost_units=row.cost,
            fee_rate=EXACT.scaleb(self.fees.rates[row.fee_class], -7),
            inverse=lane.inverse,
        )
        (trade_id,) = self.trade_ids(np.array([index]))
        return DecimalRow(trade_id, user_id, currency, lane.symbol, figures)

    def compact(self) -> None:
        """Drop tombstones, sort the tail in, forget groups and lanes without positions."""
        group_map = self.groups.compact()
        # A decimal row counts in no group, but its user has one, for `digests`.
        for row in self.decimal_rows.values():
            self.groups.number((row.user_id, row.currency))
        lane_map = self.lanes.compact(keep_first=1)
        self.columns.compact(group_map, lane_map)
        self.trade_rows.relocate(self.columns.slot)
        self.lanes.lots_max = self.columns.lots_max(len(self.lanes.keys)).tolist()
        cost = self.columns.cost
        self.cost_max = max(int(cost.max(initial=0)), -int(cost.min(initial=0)))

    @property
    def _numbering(self) -> Numbering:
        return Numbering(self.groups, self.lanes, self.fees)

    def _take(self, positions: Sequence[Position], versions: Ints) -> int:
        """Place positions of different trades, each at its version; returns how many were not skipped."""
        trade_ids = [position.trade_id for position in positions]
        slots = self.trade_rows.slots(trade_ids)
        is_new = versions > self._known_versions(trade_ids, self.trade_rows.rows[slots])
        if not is_new.all():
            positions = list(compress(positions, is_new.tolist()))
        if positions:
            self._place(positions, slots[is_new], versions[is_new])
        return len(positions)

    def _known_versions(self, trade_ids: Sequence[str], rows: Numbers) -> Ints:
        """The version at which each trade is known, −1 if it is not; `rows` are theirs."""
        known = np.full(len(rows), -1, np.int64)
        for versions in filter(None, (self.removed, self.decimal_versions)):
            elsewhere = map(versions.get, trade_ids, repeat(-1))
            np.maximum(known, np.fromiter(elsewhere, np.int64, len(rows)), out=known)
        has_row = rows != NO_ROW
        known[has_row] = self.columns.versions(rows[has_row])
        return known

    def _place(self, positions: Sequence[Position], slots: Numbers, versions: Ints) -> None:
        try:
            figures = figure_columns(positions)
        except InvalidTrade:
            valid = _count_valid(positions)
            if valid:
                self._place(positions[:valid], slots[:valid], versions[:valid])
            raise
        encoded = encode(positions, figures, self._numbering)
        rows = self.trade_rows.rows[slots]
        has_row = rows != NO_ROW
        stays = has_row & encoded.fits
        stays[stays] = self.columns.group[rows[stays]] == encoded.rows.group[stays]
        self._forget([position.trade_id for position in positions])
        if has_row.any():
            self._rewrite(rows[stays], encoded.rows.at(stays), versions[stays])
            self._kill(rows[has_row & ~stays])
        is_new = encoded.fits & ~stays
        if is_new.any():
            self._append(encoded.rows.at(is_new), versions[is_new], slots[is_new])
        for index in np.flatnonzero(~encoded.fits).tolist():
            self._place_single(positions[index], figures.at(index), int(versions[index]))

    def _place_single(self, position: Position, figures: Figures, version: int) -> None:
        trade_id, user_id = position.trade_id, position.user_id
        self.decimal_rows[trade_id] = DecimalRow(
            trade_id, user_id, position.currency, position.symbol, figures
        )
        self.decimal_versions[trade_id] = version

    def _rewrite(self, indices: Indices, rows: Rows, versions: Ints) -> None:
        """Give rows new figures in their group; one with the same figures only gets its version."""
        former = self.columns.rows(indices)
        changed = np.flatnonzero(rows.differ(former))
        self.columns.restamp(indices, versions)
        if not len(changed):
            return
        self._count_out(former.at(changed))
        self._count_in(rows.at(changed))
        self.columns.overwrite(indices[changed], rows.at(changed), versions[changed])

    def _append(self, rows: Rows, versions: Ints, slots: Numbers) -> None:
        self.trade_rows.add(slots, self.columns.size)
        self.columns.append(rows, versions, slots)
        self._count_in(rows)

    def _kill(self, indices: Indices) -> None:
        if not len(indices):
            return
        self._count_out(self.columns.rows(indices))
        self.columns.kill(indices)
        self.trade_rows.remove(self.columns.slot[indices])

    def _forget(self, trade_ids: Collection[str]) -> None:
        """Drop what is known of trades outside the columns."""
        known: tuple[dict[str, Any], ...] = (self.removed, self.decimal_versions, self.decimal_rows)
        for each in filter(None, known):
            for trade_id in filter(each.__contains__, trade_ids):
                del each[trade_id]

    def _count_in(self, rows: Rows) -> None:
        """Count rows that enter, and keep the bounds of what is in the columns."""
        counts, lots_max = self.lanes.counts, self.lanes.lots_max
        for lane, lots in zip((rows.code >> 1).tolist(), np.abs(rows.lots).tolist(), strict=True):
            counts[lane] += 1
            lots_max[lane] = max(lots_max[lane], lots)
        for group in rows.group.tolist():
            self.groups.counts[group] += 1
        self.cost_max = max(self.cost_max, int(np.abs(rows.cost).max(initial=0)))

    def _count_out(self, rows: Rows) -> None:
        for lane in (rows.code >> 1).tolist():
            self.lanes.counts[lane] -= 1
        for group in rows.group.tolist():
            self.groups.counts[group] -= 1

    def _compact_if_due(self) -> None:
        if self.columns.stale > max(self._compact_rows_min, self.columns.size // _COMPACT_SHARE):
            self.compact()


def _batches(positions: Iterable[Position], versions: Iterable[int]) -> Iterator[tuple[list[Position], Ints]]:
    """Positions and versions in order, in batches that have a trade once."""
    positions, versions = iter(positions), iter(versions)
    while batch := list(islice(positions, _BATCH_ROWS)):
        at = np.fromiter(islice(versions, len(batch)), np.int64, len(batch))
        seen: set[str] = set()
        start = 0
        for index, position in enumerate(batch):
            if position.trade_id in seen:
                yield batch[start:index], at[start:index]
                start = index
                seen.clear()
            seen.add(position.trade_id)
        yield batch[start:], at[start:]


def _count_valid(positions: Sequence[Position]) -> int:
    """How many positions are valid before the first that is not."""
    for index, position in enumerate(positions):
        try:
            figures_of(position)
        except InvalidTrade:
            return index
    return len(positions)
