"""`audit-report`: the page of the kept audit reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import Embedded, open_pool
from tradepool.printable import printable

__all__ = ["audit_report"]


def audit_report(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write here, not to audits/index.html of the pool."),
    ] = None,
    embedded: Embedded = None,
) -> int:
    """Write the page of the kept audit reports: findings, repairs, and plots of how it went."""
    with open_pool(embedded) as pool:
        written = pool.write_audit_page(output)
    typer.echo(printable(str(written)))
    return OK
