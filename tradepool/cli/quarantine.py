"""`quarantine`: trades that nothing may change until somebody has looked at them."""

from __future__ import annotations

from typing import Annotated

import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import counted, print_json, print_rows, time_text
from tradepool.errors import InvalidTrade
from tradepool.model.trade import Trade

__all__ = ["quarantine"]

_COLUMNS = ("trade", "user", "symbol", "status", "changed", "reason")


def quarantine(
    trade: Annotated[str | None, typer.Argument(help="The trade's id; without one all are listed.")] = None,
    *,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Put it in quarantine: why nothing may change it.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Let it change again.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """List the trades in quarantine; put one in, or release it."""
    if trade is None and (reason is not None or release):
        raise InvalidTrade("missing", field="TRADE", cure="name the trade's id before --reason or --release")
    if reason is not None and release:
        cure = "give one of the two"
        raise InvalidTrade("put in and released at once", field="TRADE", value=trade, cure=cure)
    if trade is not None and reason is None and not release:
        raise InvalidTrade(
            "neither put in nor released", field="TRADE", value=trade, cure="--reason or --release"
        )
    with open_pool(embedded) as pool:
        if trade is not None and reason is not None:
            pool.quarantine(trade, reason)
        elif trade is not None:
            pool.release_quarantine(trade)
        _show(pool.get_quarantined(), as_json=as_json)
    return OK


def _show(found: list[Trade], *, as_json: bool) -> None:
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    rows = [
        (one.trade_id, one.user_id, one.symbol, one.status, time_text(one.updated_at), one.quarantine)
        for one in found
    ]
    print_rows(counted(len(rows), "trade") + " in quarantine", _COLUMNS, rows)
