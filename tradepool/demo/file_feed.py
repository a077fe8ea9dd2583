"""Trades of a real export, fed through the client as a bot would send them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

from tradepool.client import PoolClient
from tradepool.errors import Rejected
from tradepool.importers.grouping import Resolved, resolved
from tradepool.importers.opening import open_import
from tradepool.importers.rows import Defaults, RefusedRow, TradeRow
from tradepool.pool import TradePool

__all__ = ["FileFeed", "read_export"]


def read_export(path: Path) -> list[Resolved]:
    """The rows of a file: trades, and what is none. Raises: Rejected when it cannot be read at all."""
    return list(resolved(open_import(path, defaults=Defaults(user="demo")).entries))


class FileFeed:
    """Sends every trade of an export, as `read_export` has read it, once, from `start` on."""

    def __init__(self, client: PoolClient, pool: TradePool, entries: Sequence[Resolved]) -> None:
        self._client = client
        self._pool = pool
        self._rows = [entry for entry in entries if isinstance(entry, TradeRow)]
        self._thread = threading.Thread(target=self._feed, name="file-feed", daemon=True)
        self.users = sorted({str(row.trade["user_id"]) for row in self._rows})
        self.trade_ids: list[str] = []
        self.refused = [f"{e.position}: {e.reason}" for e in entries if isinstance(e, RefusedRow)]

    @property
    def is_done(self) -> bool:
        """Whether everything is sent."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send the rest, then end: a file is imported whole."""
        self._thread.join()

    def _feed(self) -> None:
        """Prices first: without another feed, what the file traded at last is what things are worth."""
        prices = {str(row.trade["symbol"]): row.trade.get("price") for row in self._rows}
        with contextlib.suppress(Rejected):
            self._pool.set_prices({symbol: price for symbol, price in prices.items() if price is not None})
        for row in self._rows:
            self._send(row)

    def _send(self, row: TradeRow) -> None:
        try:
            self.trade_ids.append(self._client.add_trade(row.trade))
        except Rejected as refusal:
            self.refused.append(f"{row.position}: {refusal}")
