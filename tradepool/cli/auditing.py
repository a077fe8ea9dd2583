"""`check-trades` and `check-all-trades`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tradepool.audit.registry import Level
from tradepool.audit.report import AuditReport
from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, User, open_pool
from tradepool.cli.output import figures_table, print_json, print_table, rows_table

__all__ = ["check_all_trades", "check_trades"]


def check_trades(
    user: User,
    *,
    shallow: Annotated[bool, typer.Option("--shallow", help="Leave the journal out.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Audit one user: records, indexes, counters, computed figures and the journal."""
    with open_pool(embedded) as pool:
        return _shown(pool.check_trades(user, deep=not shallow), as_json=as_json)


def check_all_trades(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Compare every record, not only digests.")] = False,
    level: Annotated[
        Level | None, typer.Option("--level", help="How deep to look; see docs/audit.md.")
    ] = None,
    venue: Annotated[
        Path | None,
        typer.Option(
            "--venue", help="JSON of a venue's positions and balances, compared as well.", exists=True
        ),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", hidden=True, help="Not in this release.")] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Audit the pool: the store against the journal, indexes and counters against the records."""
    with open_pool(embedded) as pool:
        told = None if venue is None else venue.read_bytes()
        report = pool.check_all_trades(deep=deep, repair=repair, level=level, venue=told)
        return _shown(report, as_json=as_json)


def _shown(report: AuditReport, *, as_json: bool) -> int:
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    return OK if report.ok else FINDINGS


def _print_report(report: AuditReport) -> None:
    checked = {f"{name} checked": count for name, count in report.checked.items()}
    figures = checked | {"undecided": len(report.undecided), "findings": len(report.findings)}
    print_table(f"audit ({report.level}, {report.duration_s:.2f} s)", figures_table(figures))
    if report.findings:
        rows = [(found.severity, found.rule, found.subject, found.detail) for found in report.findings]
        print_table("findings", rows_table(("severity", "rule", "subject", "detail"), rows))
