"""`trades` and `summary`: what the pool knows of trades."""

from __future__ import annotations

from heapq import nlargest
from typing import Annotated, Any

import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, User, open_pool
from tradepool.cli.output import counted, figures_table, print_json, print_table, rows_table, time_text
from tradepool.model.blocks import Block
from tradepool.model.kinds import Source, Status
from tradepool.model.money import plain
from tradepool.model.summary import Summary
from tradepool.model.trade import Trade
from tradepool.narrowing import LIMIT_MAX, Narrowing, narrow, place_of

__all__ = ["summary", "trades"]

_COLUMNS = ("trade", "created", "user", "symbol", "side", "amount", "price", "status", "pnl", "source")


def trades(
    *,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol's, like BTC/USDT.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only of this source.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Only of this strategy.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Created at or after, UTC.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Created before, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="How many at most.")] = 50,
    open_only: Annotated[bool, typer.Option("--open", help="Only trades that are not final.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """List trades, newest first: a user's, a symbol's, the open ones, or the newest of all."""
    narrowing: Narrowing = {"status": status, "strategy": strategy, "since": since, "until": until}
    narrow(**narrowing)  # what is wrong in itself is said without a pool
    with open_pool(embedded) as pool:
        if open_only:
            opened = pool.get_open_trades(user, source=source, symbol=symbol, **narrowing)
            chosen = nlargest(limit, opened, key=place_of)
        else:
            chosen = pool.get_recent_trades(limit, user, source=source, symbol=symbol, **narrowing)
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
    counters: Annotated[
        bool, typer.Option("--counters", help="Only what is counted anyway, at once: no statistics.")
    ] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Show a user's counts, money and statistics, after fees; beside them what the source reported."""
    with open_pool(embedded) as pool:
        found = pool.get_user_summary(user, source=source, currency=currency, statistics=not counters)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_summary(found)
    return OK


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
        "best day": series and series.best_day,
        "worst day": series and series.worst_day,
        "longest run of wins": series and series.max_consecutive_wins,
        "longest run of losses": series and series.max_consecutive_losses,
        "max drawdown": series and series.max_drawdown_abs,
        "max drawdown, share": series and series.max_drawdown_relative,
        "sharpe, daily": series and series.sharpe_daily,
        "sortino, daily": series and series.sortino_daily,
        "growth a year": series and series.cagr,
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
