"""`check-trades` and `check-all-trades`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tradepool.audit.report import AuditReport
from tradepool.audit.rules.registry import Level
from tradepool.cli.audit_output import print_report
from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.fleet_audit import audited_by_fleet
from tradepool.cli.opening import AsJson, Embedded, User, open_pool
from tradepool.cli.output import print_json, progress_bar
from tradepool.errors import InvalidQuery, Misconfigured

__all__ = ["check_all_trades", "check_trades"]

Repair = Annotated[
    bool, typer.Option("--repair", help="Write what is safe; else what would be written is shown.")
]


def check_trades(
    user: User,
    *,
    shallow: Annotated[bool, typer.Option("--shallow", help="Leave the journal out.")] = False,
    repair: Repair = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Audit one user: records, indexes, counters, computed figures and the journal."""
    with open_pool(embedded) as pool:
        report = pool.check_trades(user, deep=not shallow, repair=repair)
        if not (report.checked["records"] or report.findings or report.undecided):
            cure = "users are those who have a trade or a balance; mind the spelling"
            raise InvalidQuery("there is no such user", field="user", value=user, cure=cure)
        return _shown(report, as_json=as_json)


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
    repair: Repair = False,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Have the fleet's audit workers do it, all of them together.")
    ] = False,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Audit the pool: the store against the journal, indexes and counters against the records."""
    if fleet and embedded is not None:
        raise Misconfigured(
            "--fleet and --embedded: an embedded pool has no audit workers; give one of the two"
        )
    if deep and level is not None and level is not Level.DEEP:
        raise InvalidQuery(
            "--deep says another", field="--level", value=level.value, cure="give one of the two"
        )
    told = None if venue is None else venue.read_bytes()
    with open_pool(embedded) as pool:
        if fleet:
            wanted = level or (Level.DEEP if deep else Level.DIGEST)
            asked = {"level": wanted, "repair": repair, "venue": None if told is None else told.decode()}
            return _shown(audited_by_fleet(pool, asked), as_json=as_json)
        with progress_bar("audit") as show:
            report = pool.check_all_trades(deep=deep, repair=repair, level=level, venue=told, progress=show)
        return _shown(report, as_json=as_json)


def _shown(report: AuditReport, *, as_json: bool) -> int:
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)
    return OK if report.ok else FINDINGS
