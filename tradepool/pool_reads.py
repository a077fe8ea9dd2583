"""The read side of `TradePool`: trades, summaries, balances and marks; it only delegates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradepool import wiring
from tradepool.archive.querying import ROWS_MAX, QueryResult
from tradepool.model.summary import Summary
from tradepool.model.trade import Trade
from tradepool.narrowing import Page, narrow

if TYPE_CHECKING:
    from tradepool.pnl.marks import Marks

__all__ = ["PoolReads"]


class PoolReads:
    """What can be asked of a pool."""

    def __init__(self, services: wiring.Services) -> None:
        self._services = services

    def get_trade(self, trade_id: str, *, as_of: object = None) -> Trade:
        """The trade as it stands, live or archived, or as the journal had it at `as_of`.

        Raises: InvalidTrade; UnknownTrade, also for an archived trade where there is no archive; Corrupt when
        the archive has lost it; with an archive Misconfigured without DuckDB, ResourceUnavailable when its
        files cannot be read.
        """
        return self._services.queries.get_trade(trade_id, as_of=as_of)

    def get_trade_history(self, trade_id: str) -> list[Trade]:
        """Every version of the trade, oldest first, from the journal. Raises: UnknownTrade."""
        return self._services.queries.get_trade_history(trade_id)

    def get_all_trades(self, source: str | None = None) -> Iterator[Trade]:
        """Every trade once, live and archived, streamed, in no particular order.

        Memory grows by 16 bytes for each live one. Where there is no archive the archived ones are left
        out. Raises: InvalidTrade; with an archive as `get_trade`.
        """
        return self._services.queries.get_all_trades(source)

    def get_trades_by_user(
        self,
        user_id: str,
        source: str | None = None,
        *,
        status: str | None = None,
        since: object = None,
        until: object = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Page:
        """A user's trades, newest first, created at or after `since` and before `until`.

        Archived trades stand among them where the archive is on this machine. `cursor` is the one of the
        page before. Raises: InvalidTrade naming a wrong argument; with an archive as `get_trade`.
        """
        narrowing = narrow(source=source, status=status, since=since, until=until, limit=limit, cursor=cursor)
        return self._services.queries.get_trades_by_user(user_id, narrowing)

    def get_trades_by_symbol(
        self,
        symbol: str,
        source: str | None = None,
        *,
        status: str | None = None,
        since: object = None,
        until: object = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Page:
        """A symbol's trades over all users; otherwise like `get_trades_by_user`."""
        narrowing = narrow(source=source, status=status, since=since, until=until, limit=limit, cursor=cursor)
        return self._services.queries.get_trades_by_symbol(symbol, narrowing)

    def get_recent_trades(self, limit: int = 1000, user_id: str | None = None) -> list[Trade]:
        """The newest trades by creation time: of one user, archived ones among them, or the live ones of all.

        Raises: InvalidTrade; with a user and an archive as `get_trade`.
        """
        return self._services.queries.get_recent_trades(limit, user_id)

    def get_open_trades(self, user_id: str | None = None) -> Iterator[Trade]:
        """Trades that are not final, of all users or one, streamed."""
        return self._services.queries.get_open_trades(user_id)

    def get_user_summary(
        self, user_id: str, *, source: str | None = None, currency: str | None = None
    ) -> Summary:
        """Counts, money and statistics of a user's trades; sources and currencies are never mixed unasked."""
        return self._services.queries.get_user_summary(user_id, source=source, currency=currency)

    def get_available_tokens(self, user_id: str, *, account_id: str = "default") -> dict[str, Decimal]:
        """Free balances above zero by asset; an unknown user has none."""
        return self._services.tokens.get_available_tokens(user_id, account_id=account_id)

    def mark_to_market(
        self, prices: Mapping[str, object] | None = None, *, at: object = None, rows: bool = False
    ) -> Marks:
        """Value every open trade at `prices` (the stored ones when None), exact to 1e-8 quote units.

        Symbols without a price are listed in `.missing`, never valued at zero. `rows` adds the figure
        of each trade.
        """
        return self._services.marking.mark_to_market(prices, at=at, rows=rows)

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks by currency, with their time; empty before the first mark."""
        return self._services.marking.get_marks(user_id)

    def get_mark_totals(self) -> dict[str, Any] | None:
        """What the last mark came to in all: `at` (µs), `totals`, `missing`; None before the first."""
        return self._services.marking.get_totals()

    def sql(self, query: str, *, limit: int = ROWS_MAX) -> QueryResult:
        """The first `limit` rows that a SELECT on the table `trades` has, live and archived ones as one.

        Every live trade is read for it. Raises: InvalidQuery, ResourceUnavailable; Misconfigured without
        DuckDB, or where trades are archived and the archive is not on this machine.
        """
        return self._services.queries.sql(query, limit=limit)

    def export(
        self,
        path: str | Path,
        *,
        user_id: str | None = None,
        source: str | None = None,
        since: object = None,
        until: object = None,
        file_format: str | None = None,
        force: bool = False,
    ) -> int:
        """Write trades, live and archived, to `path`; how many they were. Durable on return.

        The format is `file_format` or what the suffix says: jsonl, csv or parquet. `since` and `until`
        mean the time of creation. Raises: InvalidTrade, also when `path` exists and `force` is not
        given; ResourceUnavailable; Misconfigured as `sql`.
        """
        narrowing = narrow(source=source, since=since, until=until)
        return self._services.queries.export(
            Path(path), narrowing, user_id=user_id, file_format=file_format, force=force
        )
