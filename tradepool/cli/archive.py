"""`sql` and `export`: live and archived trades as one table, or as one file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tradepool.archive.querying import ROWS_MAX
from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import counted, figures_table, print_json, print_rows, print_table
from tradepool.errors import InvalidQuery, InvalidTrade
from tradepool.exporters import ExportFormat, choose_format
from tradepool.model.kinds import Source, Status
from tradepool.model.money import canonical, plain
from tradepool.narrowing import Narrowing, narrow

__all__ = ["export", "sql"]


def sql(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One SELECT; 'DESCRIBE trades' shows the columns.")
    ],
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many rows at most.")] = ROWS_MAX,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Ask the table `trades`, which has live and archived trades as one. Amounts are exact."""
    with open_pool(embedded) as pool, _working("reading the live trades"):
        found = pool.sql(query, limit=limit)
    if as_json:
        _check_names(found.columns)
        rows = [[_json_value(value) for value in row] for row in found.rows]
        print_json([dict(zip(found.columns, row, strict=True)) for row in rows])
    else:
        cells = [[_cell(value) for value in row] for row in found.rows]
        print_rows(counted(len(cells), "row"), found.columns, cells)
    if found.is_cut:
        typer.echo(f"there are more than these {limit} rows; raise --limit to see them", err=True)
    return OK


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; replaced only with --force.")],
    *,
    file_format: Annotated[
        ExportFormat | None, typer.Option("--format", help="What FILE becomes; by its suffix otherwise.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol's, like BTC/USDT.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only of this source.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Only of this strategy.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Created at or after, UTC.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Created before, UTC.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Write all trades, live and archived, to FILE: whole or not at all; `import` takes each form back.

    --format freqtrade is the JSON of freqtrade's backtests, for its tools.
    """
    if str(file) == "-":
        raise InvalidTrade(
            "standard output is no file",
            field="file",
            value="-",
            cure="an export is whole or not: name a file",
        )
    chosen = choose_format(file, file_format)
    narrowing: Narrowing = {"status": status, "strategy": strategy, "since": since, "until": until}
    narrow(**narrowing)  # what is wrong in itself is said without a pool
    with open_pool(embedded) as pool, _working(f"exporting to {file}"):
        count = pool.export(
            file,
            user_id=user,
            source=source,
            symbol=symbol,
            file_format=chosen,
            force=force,
            **narrowing,
        )
    figures = {"file": str(file.absolute()), "format": chosen.value, "trades": count}
    if as_json:
        print_json(figures)
    else:
        print_table("export", figures_table(figures))
    return OK


def _check_names(columns: Sequence[str]) -> None:
    """Raises: InvalidQuery when two columns have one name: a JSON object would drop one of them."""
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise InvalidQuery(
            "two columns have one name", field="query", value=twice, cure="name them apart: … AS other_name"
        )


@contextmanager
def _working(what: str) -> Iterator[None]:
    """A sign of life on stderr, where that is a terminal: how much there is to read is not known before."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def _cell(value: Any) -> Any:
    """A value for people: amounts without the zeros that their column pads them with."""
    return canonical(value) if isinstance(value, Decimal) else value


def _json_value(value: Any) -> Any:
    match value:
        case Decimal():
            return plain(canonical(value))
        case list() | tuple():
            return [_json_value(item) for item in value]
        case dict():
            return {str(key): _json_value(item) for key, item in value.items()}
        case date() | time():
            return value.isoformat()
        case None | bool() | int() | str():
            return value
    # JSON has no NaN and no infinity; what else SQL knows is shown as its text.
    return value if isinstance(value, float) and math.isfinite(value) else str(value)
