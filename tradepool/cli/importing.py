"""`import`: trades of other programs' files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import figures_table, print_json, print_table, progress_bar
from tradepool.importers import Defaults, Format, ImportReport, import_opened, open_import
from tradepool.model.fields import contract_size as checked_size
from tradepool.model.kinds import Market, Source

__all__ = ["import_trades"]


def import_trades(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file, or the folder of the old bot's two files.")
    ],
    *,
    file_format: Annotated[Format, typer.Option("--format", help="What FILE is.")] = Format.AUTO,
    user: Annotated[str | None, typer.Option(help="Owner of the trades where FILE names none.")] = None,
    source: Annotated[Source | None, typer.Option(help="Their source where FILE names none.")] = None,
    exchange: Annotated[
        str | None, typer.Option(help="Where they were made; ccxt's lists never say.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="The account there, if there are several.")] = None,
    market: Annotated[
        Market | None, typer.Option(help="What symbols without a settlement are; spot by default.")
    ] = None,
    contract_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of contracts, where ccxt's costs do not show it.")
    ] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Import trades; what is imported already stays as it is. Exit 1 when a row was refused."""
    defaults = Defaults(
        user=user,
        source=source,
        exchange=exchange,
        account=account,
        market=market,
        contract_size=None if contract_size is None else checked_size("contract_size", contract_size),
    )
    opened = open_import(file, file_format=file_format, defaults=defaults)
    with open_pool(embedded, create=True) as pool, progress_bar("importing") as progress:
        report = import_opened(pool, opened, progress=progress)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(file, report)
    return OK if report.ok else FINDINGS


def _print_report(file: Path, report: ImportReport) -> None:
    for refusal in report.refused:
        typer.echo(f"refused {refusal.position}: {refusal.reason}", err=True)
    for idle in report.idle:
        typer.echo(f"left out {idle.position}: {idle.reason}", err=True)
    figures = {
        "rows read": report.read,
        "trades applied": report.applied,
        "rows merged into them": report.merged,
        "duplicates": report.duplicate,
        "nothing to book": len(report.idle) or None,
        "refused": len(report.refused),
    }
    print_table(f"{file} ({report.format})", figures_table(figures))
