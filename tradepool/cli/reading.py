"""`trades`, `summary` and `tokens`: what the pool knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any

import msgspec
import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import counted, figures_table, print_json, print_table, rows_table, time_text
from tradepool.model.kinds import Source, Status
from tradepool.model.money import plain
from tradepool.model.summary import Block, Summary
from tradepool.model.times import parse_time
from tradepool.model.trade import Trade
from tradepool.narrowing import Page
from tradepool.pool import TradePool

__all__ = ["summary", "tokens", "trades"]

_RECENT_MAX = 10_000
_PAGE = 1000
_COLUMNS = ("trade", "created", "user", "symbol", "side", "amount", "price", "status", "pnl", "source")

User = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]


def trades(
    *,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol's, like BTC/USDT.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only of this source.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Created at or after, UTC.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Created before, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_RECENT_MAX, help="How many at most.")] = 50,
    open_only: Annotated[bool, typer.Option("--open", help="Only trades that are not final.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """List trades, newest first: a user's, a symbol's, the open ones, or the newest of all."""
    wanted = _Wanted(
        user=user,
        symbol=symbol,
        source=source,
        status=status,
        since=None if since is None else parse_time("--since", since),
        until=None if until is None else parse_time("--until", until),
    )
    with open_pool(embedded) as pool:
        found = filter(wanted.admits, _candidates(pool, wanted, open_only=open_only))
        chosen = list(islice(found, limit))
    if as_json:
        print_json([trade.to_dict() for trade in chosen])
    else:
        print_table(counted(len(chosen), "trade"), rows_table(_COLUMNS, map(_trade_row, chosen)))
    return OK


def summary(
    user: User,
    *,
    source: Annotated[
        str | None, typer.Option(help="One source, or all; else his only one, or real.")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Settlement currency; else the one used most.")] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Show a user's counts, money and statistics, after fees; beside them what the source reported."""
    with open_pool(embedded) as pool:
        found = pool.get_user_summary(user, source=source, currency=currency)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_summary(found)
    return OK


def tokens(user: User, *, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Show a user's available tokens."""
    with open_pool(embedded) as pool:
        available = pool.get_available_tokens(user)
    if as_json:
        print_json({asset: plain(amount) for asset, amount in available.items()})
    else:
        print_table(f"available to {user}", rows_table(("asset", "amount"), sorted(available.items())))
    return OK


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which trades to list; None takes all. Times are µs."""

    user: str | None
    symbol: str | None
    source: Source | None
    status: Status | None
    since: int | None
    until: int | None

    def admits(self, trade: Trade) -> bool:
        return (
            self.user in (None, trade.user_id)
            and self.symbol in (None, trade.symbol)
            and self.source in (None, trade.source)
            and self.status in (None, trade.status)
            and (self.since is None or trade.created_at >= self.since)
            and (self.until is None or trade.created_at < self.until)
        )


def _candidates(pool: TradePool, wanted: _Wanted, *, open_only: bool) -> Iterator[Trade]:
    """The smallest list that has all wanted trades, newest first."""
    if open_only:
        opened = pool.get_open_trades(wanted.user)
        return iter(sorted(opened, key=lambda trade: (trade.created_at, trade.trade_id), reverse=True))
    if wanted.user is not None:
        return _pages(partial(pool.get_trades_by_user, wanted.user), wanted)
    if wanted.symbol is not None:
        return _pages(partial(pool.get_trades_by_symbol, wanted.symbol), wanted)
    return iter(pool.get_recent_trades(_RECENT_MAX))


def _pages(read: Callable[..., Page], wanted: _Wanted) -> Iterator[Trade]:
    cursor: str | None = None
    while True:
        page = read(
            source=wanted.source,
            status=wanted.status,
            since=wanted.since,
            until=wanted.until,
            limit=_PAGE,
            cursor=cursor,
        )
        yield from page.trades
        cursor = page.cursor
        if cursor is None:
            return


def _trade_row(trade: Trade) -> tuple[Any, ...]:
    created = time_text(trade.created_at)
    identity = (trade.trade_id, created, trade.user_id, trade.symbol, trade.side)
    return (*identity, trade.amount, trade.price, trade.status, trade.pnl, trade.source)


def _print_summary(found: Summary) -> None:
    print_table(
        f"{found.user_id}, {found.source}, {found.currency or 'no trades'}", figures_table(_figures(found))
    )
    if found.reported.trade_count:
        print_table("as the source reported it", figures_table(_reported_figures(found)))
    if found.pairs:
        rows = [
            (name, part.trade_count, part.wins, part.losses, part.pnl) for name, part in found.pairs.items()
        ]
        print_table("by pair", rows_table(("pair", "trades", "wins", "losses", "pnl"), rows))
    others = [f"{number} {source}" for source, number in found.other_sources.items()]
    others += [
        f"{block.trade_count} in {name}"
        for name, block in found.by_currency.items()
        if name != found.currency
    ]
    if found.archived_left_out:
        others.append(f"{found.archived_left_out} archived in the statistics")
    if others:
        typer.echo(f"not in these figures: {', '.join(others)} (see --source and --currency)")


def _figures(found: Block) -> dict[str, Any]:
    series = found.statistics
    return {
        "trades": found.trade_count,
        "open / closed": f"{found.open} / {found.closed}",
        "wins / losses / draws": f"{found.wins} / {found.losses} / {found.draws}",
        "win rate": found.win_rate,
        "pnl": found.pnl,
        "profit": found.profit,
        "loss": found.loss,
        "profit factor": found.profit_factor,
        "expectancy": found.expectancy,
        "gross": found.gross,
        "fees": ", ".join(f"{plain(fee)} {coin}" for coin, fee in found.fees.items()) or None,
        "funding": found.funding or None,
        "volume": found.volume,
        "deposit": found.deposit or None,
        "best": series and series.best,
        "worst": series and series.worst,
        "max drawdown": series and series.max_drawdown_abs,
        "first": series and time_text(series.first_at),
        "last": series and time_text(series.last_at),
    }


def _reported_figures(found: Block) -> dict[str, Any]:
    reported = found.reported
    return {
        "trades": reported.trade_count,
        "wins / losses / draws": f"{reported.wins} / {reported.losses} / {reported.draws}",
        "pnl": reported.pnl,
        "profit": reported.profit,
        "loss": reported.loss,
        "profit factor": reported.profit_factor,
    }
