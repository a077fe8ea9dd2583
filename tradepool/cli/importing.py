"""`import`: trades of other programs' files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import figures_table, print_json, print_table, progress_bar
from tradepool.importers import Defaults, Format, ImportReport, import_opened, open_import
from tradepool.model.kinds import Source

__all__ = ["import_trades"]


def import_trades(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file, or the folder of the old bot's two files.")
    ],
    *,
    file_format: Annotated[Format, typer.Option("--format", help="What FILE is.")] = Format.AUTO,
    user: Annotated[str | None, typer.Option(help="Owner of the trades where FILE names none.")] = None,
    source: Annotated[Source | None, typer.Option(help="Their source where FILE names none.")] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Import trades; what is imported already stays as it is. Exit 1 when a row was refused."""
    opened = open_import(file, file_format=file_format, defaults=Defaults(user=user, source=source))
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
    figures = {
        "rows read": report.read,
        "trades applied": report.applied,
        "rows merged into them": report.merged,
        "duplicates": report.duplicate,
        "refused": len(report.refused),
    }
    print_table(f"{file} ({report.format})", figures_table(figures))
