"""`import`: trades of other programs' files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress as Bar

from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import figures_table, print_json, print_table
from tradepool.importers import Defaults, Format, ImportReport, Progress, import_opened, open_import
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
    with open_pool(embedded, create=True) as pool, _progress() as progress:
        report = import_opened(pool, opened, progress=progress)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(file, report)
    return OK if report.ok else FINDINGS


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importing", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


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
