"""What every backend of marks does."""

from __future__ import annotations

from typing import Protocol

from tradepool.pnl.book.columns import Columns
from tradepool.pnl.sums import Sums
from tradepool.pnl.tables import Tables

__all__ = ["Backend"]


class Backend(Protocol):
    """Keeps up with one book's columns and marks them; not thread-safe.

    `upload` once per generation of the columns, `apply` before a `mark` after changes within it, then
    `mark`, then `download`. Every backend gives the same sums to the last 10⁻⁸.
    """

    @property
    def name(self) -> str:
        """What `Marks.backend` says."""
        ...

    @property
    def generation(self) -> object:
        """The generation of the columns it follows; None before the first `upload`."""
        ...

    def upload(self, columns: Columns) -> None:
        """Take all rows of `columns`, forgetting those of any other."""
        ...

    def apply(self, columns: Columns) -> None:
        """Take what changed since the last `upload` or `apply`: the longer tail, the longer `touched`."""
        ...

    def mark(self, tables: Tables, *, groups: int, rows: bool) -> None:
        """Mark every row and add up by group and code; keep each row's PnL if `rows`."""
        ...

    def download(self) -> Sums:
        """The result of the last `mark`."""
        ...
