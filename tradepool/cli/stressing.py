"""`stress`: what the open trades would gain or lose in scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Annotated, Any

import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import counted, print_json, print_table, rows_table
from tradepool.errors import InvalidTrade
from tradepool.importers.file_text import read_document
from tradepool.pnl.stress.results import Risk, StressTest
from tradepool.pnl.stress.scenarios import REST

__all__ = ["stress"]

_WORST_SHOWN = 10
_COLUMNS = ("", "currency", "unrealised now", "VaR", "ES", "worst change", "worst in", "trades")


def stress(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help='Scenarios in JSON: {NAME: {"shocks": {SYMBOL: change}, "prices": {…}}}.'
        ),
    ] = None,
    *,
    shock: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SYMBOL=]CHANGE", help="A scenario: -0.1 takes a tenth off every price. Repeat for more."
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Base prices, {SYMBOL: price} in JSON; else the stored ones."),
    ] = None,
    confidence: Annotated[str, typer.Option(help="Of VaR and ES.")] = "0.95",
    user: Annotated[list[str] | None, typer.Option(help="Show this user as well. Repeat for more.")] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Show what the open trades would gain or lose: value at risk, expected shortfall, worst scenario."""
    scenarios = _scenarios(file, shock or [])
    base: Any = None if prices is None else read_document(prices)
    users = user or []
    with open_pool(embedded) as pool:
        test = pool.stress_test(scenarios, prices=base, confidence=confidence, users=users)
    if as_json:
        print_json(test.to_dict(users))
    else:
        _print_test(test, users)
    return OK


def _scenarios(file: Path | None, shocks: list[str]) -> Any:
    if (file is None) == (not shocks):
        given = "neither" if file is None else f"{file} and {counted(len(shocks), '--shock')}"
        cure = "name a FILE of scenarios or give --shock, as in: tradepool stress --shock -0.1"
        raise InvalidTrade("neither or both a file and shocks", field="scenarios", value=given, cure=cure)
    return {shock: _shocked(shock) for shock in shocks} if file is None else read_document(file)


def _shocked(shock: str) -> dict[str, dict[str, str]]:
    symbol, _, change = shock.rpartition("=")
    return {"shocks": {symbol or REST: change}}


def _print_test(test: StressTest, users: list[str]) -> None:
    rows = [_row("all", currency, risk) for currency, risk in test.fleet.items()]
    rows += [
        _row(user_id, currency, risk)
        for user_id in users
        for currency in test.fleet
        if (risk := test.users.get((user_id, currency))) is not None
    ]
    title = f"{counted(len(test.scenarios), 'scenario')}, confidence {test.confidence}"
    print_table(title, rows_table(_COLUMNS, rows))
    print_table("worst scenarios", rows_table(("currency", "scenario", "change"), _worst(test)))
    shown = {row[0] for row in rows}
    _print_names("users without a priced open trade", [user_id for user_id in users if user_id not in shown])
    _print_names("without a price, in no figure", test.missing)
    _print_names("of no open trade", test.unheld)
    _print_names("at an old price", [f"{symbol} ({age:.0f} s)" for symbol, age in test.stale.items()])


def _print_names(what: str, names: Sequence[str]) -> None:
    if names:
        typer.echo(f"{what}: {', '.join(names)}")


def _row(whose: str, currency: str, risk: Risk) -> tuple[Any, ...]:
    figures = (risk.base, risk.value_at_risk, risk.expected_shortfall, risk.worst_change)
    return (whose, currency, *figures, risk.worst_scenario, risk.count)


def _worst(test: StressTest) -> Iterator[tuple[Any, ...]]:
    for currency, risk in test.fleet.items():
        changes = (risk.changes or {}).items()
        for name, change in nsmallest(_WORST_SHOWN, changes, key=lambda one: one[1]):
            yield currency, name, change
