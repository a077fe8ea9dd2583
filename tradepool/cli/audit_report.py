"""`audit-report`: the page of the kept audit reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import print_json
from tradepool.errors import InvalidQuery
from tradepool.pool import TradePool
from tradepool.printable import printable

__all__ = ["audit_report"]


def audit_report(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write here, not to audits/index.html of the pool."),
    ] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Write the page of the kept audit reports: findings, repairs, and plots of how it went."""
    with open_pool(embedded) as pool:
        written = _written(pool, output)
    if as_json:
        print_json({"file": str(written)})
    else:
        typer.echo(printable(str(written)))
    return OK


def _written(pool: TradePool, output: Path | None) -> Path:
    try:
        return pool.write_audit_page(output)
    except InvalidQuery as refusal:
        raise InvalidQuery(
            refusal.problem, field="--output", value=str(output), cure=refusal.cure
        ) from refusal
