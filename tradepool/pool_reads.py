"""The read side of `TradePool`: trades, summaries, balances and marks; it only delegates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tradepool import wiring
from tradepool.archive.querying import ROWS_MAX, QueryResult
from tradepool.clock import now_us
from tradepool.model.ledger import Reservation, open_reservations
from tradepool.model.summary import Summary
from tradepool.model.trade import Trade
from tradepool.narrowing import Narrowing, Page, narrow, part, path_of
from tradepool.placing import known_id

if TYPE_CHECKING:
    from tradepool.pnl.marks import Marks
    from tradepool.pnl.stress.results import StressTest

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

    def get_all_trades(
        self,
        source: str | None = None,
        *,
        symbol: str | None = None,
        **narrowing: Unpack[Narrowing],
    ) -> Iterator[Trade]:
        """Every trade once, live and archived, streamed, in no particular order.

        Only those of a source, symbol, status or strategy, created at or after `since` and before `until`,
        where that is given. Memory grows by 16 bytes for each live one. Where there is no archive the
        archived ones are left out. Raises: InvalidTrade naming a wrong argument; with an archive as
        `get_trade`.
        """
        wanted = narrow(source=source, symbol=symbol, **narrowing)
        return self._services.queries.get_all_trades(wanted)

    def get_trades_by_user(
        self,
        user_id: str,
        source: str | None = None,
        *,
        symbol: str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
        **narrowing: Unpack[Narrowing],
    ) -> Page:
        """A user's trades, newest first, narrowed as in `get_all_trades`.

        Archived trades stand among them where the archive is on this machine. `cursor` is the one of the
        page before: pages skip and repeat nothing that was there from the first one on, whatever is
        written meanwhile. Raises: InvalidTrade naming a wrong argument; with an archive as `get_trade`.
        """
        known_id("user_id", user_id)
        wanted = narrow(user_id=user_id, source=source, symbol=symbol, **narrowing)
        return self._services.queries.get_trades(wanted, part(limit, cursor))

    def get_trades_by_symbol(
        self,
        symbol: str,
        source: str | None = None,
        *,
        limit: int = 1000,
        cursor: str | None = None,
        **narrowing: Unpack[Narrowing],
    ) -> Page:
        """A symbol's trades over all users; otherwise like `get_trades_by_user`."""
        known_id("symbol", symbol)
        wanted = narrow(symbol=symbol, source=source, **narrowing)
        return self._services.queries.get_trades(wanted, part(limit, cursor))

    def get_recent_trades(
        self,
        limit: int = 1000,
        user_id: str | None = None,
        *,
        source: str | None = None,
        symbol: str | None = None,
        **narrowing: Unpack[Narrowing],
    ) -> list[Trade]:
        """The newest trades by creation time, of one user or of all, archived ones among them.

        Narrowed as in `get_all_trades`; where neither a user nor a symbol is given and few of the newest
        10,000 are wanted, or are left where there is no archive, every trade is read. Raises: InvalidTrade;
        with an archive as `get_trade`.
        """
        wanted = narrow(user_id=user_id, source=source, symbol=symbol, **narrowing)
        known_max = self._services.settings.recent_max
        return self._services.queries.get_recent_trades(wanted, part(limit).limit, known_max=known_max)

    def get_open_trades(
        self,
        user_id: str | None = None,
        *,
        source: str | None = None,
        symbol: str | None = None,
        **narrowing: Unpack[Narrowing],
    ) -> Iterator[Trade]:
        """Trades that can still fill or close, of all users or one, streamed.

        Narrowed as in `get_all_trades`. Raises: InvalidTrade.
        """
        wanted = narrow(user_id=user_id, source=source, symbol=symbol, **narrowing)
        return self._services.queries.get_open_trades(wanted)

    def get_quarantined(self, limit: int = 1000) -> list[Trade]:
        """The newest trades in quarantine: each says why in `quarantine`. Raises: InvalidTrade."""
        return self._services.queries.get_quarantined(part(limit).limit)

    def get_user_summary(
        self, user_id: str, *, source: str | None = None, currency: str | None = None, statistics: bool = True
    ) -> Summary:
        """Counts, money and statistics of a user's trades; sources and currencies are never mixed unasked.

        It is never older than the call. With `statistics` False only what is counted is asked for, in one
        round trip; otherwise the trades that changed since this process was last asked are read, or all of
        the user's when it was not. Raises: InvalidTrade; with an archive as `get_trade`.
        """
        return self._services.queries.get_user_summary(
            user_id, source=source, currency=currency, statistics=statistics
        )

    def get_available_tokens(self, user_id: str, *, account_id: str = "default") -> dict[str, Decimal]:
        """Free balances above zero by asset; an unknown user has none."""
        return self._services.tokens.get_available_tokens(user_id, account_id=account_id)

    def get_reservations(self, user_id: str, *, account_id: str = "default") -> list[Reservation]:
        """The account's reservations that are neither settled, released nor given back yet, oldest first.

        One whose time is over says `expired`: it can still be settled or released, but holds nothing.
        """
        ledger = self._services.tokens.get_ledger(user_id, account_id=account_id)
        return [] if ledger is None else open_reservations(ledger, now_us())

    def mark_to_market(
        self,
        prices: Mapping[str, object] | None = None,
        *,
        at: object = None,
        rows: bool = False,
        write: bool = True,
    ) -> Marks:
        """Value every open trade at `prices` (the stored ones when None), exact to 1e-8 quote units.

        Symbols without a price are listed in `.missing`, never valued at zero; those whose stored price is
        older than `price_max_age_s` are valued and listed in `.stale`. `rows` adds the figure of each trade.
        The marks that others read (`get_marks`) are replaced, unless newer ones stand; with `write` False
        they never are: what if prices were these? Raises: InvalidTrade naming a wrong price or time.
        """
        return self._services.marking.mark_to_market(prices, at=at, rows=rows, write=write)

    def stress_test(
        self,
        scenarios: Mapping[str, object] | Sequence[object],
        *,
        prices: Mapping[str, object] | None = None,
        confidence: object = "0.95",
        users: Iterable[str] = (),
    ) -> StressTest:
        """What every open trade would gain or lose in each scenario: the distribution, its VaR and ES.

        A scenario is a `Scenario`, or a dict of `prices` by symbol, of `shocks` (-0.1 takes a tenth off; "*"
        for all symbols not named), or of both; they come by name or in a list. The base prices are `prices`,
        else the stored ones. The fleet and every user have their figures, `users` the change in each scenario
        as well. Figures and conventions: docs/stress.md. Raises: InvalidTrade.
        """
        return self._services.marking.stress_test(
            scenarios, prices=prices, confidence=confidence, users=users
        )

    def get_marks(self, user_id: str) -> dict[str, Any]:
        """The user's latest marks: `at` (µs) and `by_currency`; empty before the first mark.

        Of each currency `unrealised`, `profit` and `exposure` as decimal text, `winners`, `count`, and how
        many open trades are in none of these for want of a price: `unmarked`. Raises: InvalidTrade.
        """
        return self._services.marking.get_marks(user_id)

    def get_mark_totals(self) -> dict[str, Any] | None:
        """What the last mark came to in all; None before the first.

        `at` (µs), `backend`, `totals` by currency as decimal text, how many `users` and `rows`, the symbols
        that are `missing` a price, and the `stale` ones with the age of theirs in seconds.
        """
        return self._services.marking.get_totals()

    def get_symbol_marks(self) -> dict[str, Any]:
        """The last mark by symbol: `at` (µs) and `by_symbol`; empty before the first.

        Of each symbol and currency `unrealised`, `long_value` and `short_value` as decimal text, and `count`.
        """
        return self._services.marking.get_symbol_marks()

    def sql(self, query: str, *, limit: int = ROWS_MAX) -> QueryResult:
        """The first `limit` rows that a SELECT on the table `trades` has, live and archived ones as one.

        Every live trade is read for it. Raises: InvalidQuery, ResourceUnavailable; Misconfigured without
        DuckDB, or where trades are archived and the archive is not on this machine; Corrupt when it lacks
        some of them.
        """
        return self._services.queries.sql(query, limit=limit)

    def export(
        self,
        path: str | Path,
        *,
        user_id: str | None = None,
        source: str | None = None,
        symbol: str | None = None,
        file_format: str | None = None,
        force: bool = False,
        **narrowing: Unpack[Narrowing],
    ) -> int:
        """Write trades, live and archived, to `path`; how many they were. Durable on return.

        The format is `file_format`, jsonl, csv, parquet or freqtrade, or what the suffix says; each can be
        imported again. Which trades is said as in `get_all_trades`. Raises: InvalidTrade, also when `path`
        exists and `force` is not given; ResourceUnavailable; Misconfigured and Corrupt as `sql`.
        """
        wanted = narrow(user_id=user_id, source=source, symbol=symbol, **narrowing)
        return self._services.queries.export(path_of(path), wanted, file_format=file_format, force=force)
