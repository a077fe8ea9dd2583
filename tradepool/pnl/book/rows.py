"""Looking into a book: single positions, those of some users, and their versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from tradepool.pnl.book import Book
from tradepool.pnl.book.columns import DEAD_CODE
from tradepool.pnl.book.trade_rows import NO_ROW
from tradepool.pnl.decimal_rows import DecimalRow

__all__ = ["row_of", "rows_of", "versions_of"]


def row_of(book: Book, trade_id: str) -> DecimalRow | None:
    """The trade's position; None if it has none."""
    index = book.trade_rows.find(trade_id)
    return book.decimal_rows.get(trade_id) if index == NO_ROW else book.decimal_row(index)


def rows_of(book: Book, groups: Collection[int]) -> Iterator[DecimalRow]:
    """The positions whose (user, currency), as `book.groups` numbers them, is among `groups`."""
    columns = book.columns
    is_wanted = (columns.code != DEAD_CODE) & np.isin(columns.group, list(groups))
    for index in np.flatnonzero(is_wanted).tolist():
        yield book.decimal_row(index)
    keys = {book.groups.keys[group] for group in groups}
    yield from (row for row in book.decimal_rows.values() if (row.user_id, row.currency) in keys)


def versions_of(book: Book, trade_ids: Sequence[str]) -> dict[str, int]:
    """The version that each of the trades has in the book, of those that have a position."""
    rows = book.trade_rows.find_all(trade_ids)
    found = np.flatnonzero(rows != NO_ROW)
    versions = zip(found.tolist(), book.columns.versions(rows[found]).tolist(), strict=True)
    in_columns = {trade_ids[index]: version for index, version in versions}
    single = book.decimal_versions
    return in_columns | {trade_id: single[trade_id] for trade_id in trade_ids if trade_id in single}
