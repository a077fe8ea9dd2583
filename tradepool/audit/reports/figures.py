"""What the pool stands at while it is audited: the figures of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tradepool.store.redis_store import RedisStore

__all__ = ["BOOK_PNL", "LAG_COMMITS", "LAG_US", "OPEN_TRADES", "RECORDS", "PoolFigures"]

LAG_COMMITS = "journal_lag_commits"
"""Commits that wait for the journal."""
LAG_US = "journal_lag_us"
"""How long the first of them has waited, µs; 0 where none waits."""
RECORDS = "records"
"""Records that the journal holds: trades, ledgers, and what is left of archived trades."""
OPEN_TRADES = "open_trades"
BOOK_PNL = "book_pnl_"
"""With a currency behind it: the unrealised profit of all open trades in it at the last mark, as text."""


class PoolFigures:
    """The figures of the pool in `store`; `book_totals` gives what the last mark came to."""

    def __init__(
        self,
        store: RedisStore,
        book_totals: Callable[[], dict[str, Any] | None],
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._book_totals = book_totals
        self._now_us = now_us

    def read(self) -> dict[str, int | str]:
        """The figures by name. Raises: StoreUnavailable; ValueError where a key holds what it should not."""
        heads = self._store.outbox_heads()
        oldest = [head.oldest_at for head in heads if head.oldest_at is not None]
        totals = self._book_totals()
        pnl = {} if totals is None else totals["totals"]
        return {
            LAG_COMMITS: sum(head.length for head in heads),
            LAG_US: max(0, self._now_us() - min(oldest)) if oldest else 0,
            RECORDS: sum(shard.count for shard in self._store.journaled_shards()),
            OPEN_TRADES: sum(self._store.open_counts()),
            **{f"{BOOK_PNL}{currency}": amount for currency, amount in pnl.items()},
        }
