"""How an audit's report is printed: what was looked at, findings and repairs, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from tradepool.audit.report import AuditReport, RepairState, Severity, by_severity
from tradepool.audit.reports.figures import BOOK_PNL, LAG_COMMITS, OPEN_TRADES
from tradepool.cli.output import figures_table, print_table, rows_table, time_text

__all__ = ["print_report"]

ROWS_MAX = 50
"""Findings, and repairs, that are printed; `--json` and the report's file have all."""
_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.WARNING: "yellow",
    Severity.NOTICE: "cyan",
    RepairState.REFUSED: "bold red",
    RepairState.PLANNED: "cyan",
    RepairState.DONE: "green",
}


def print_report(report: AuditReport) -> None:
    """Print the report as tables; what users wrote is shown and does nothing."""
    print_table(f"audit ({report.level}, {report.duration_s:.2f} s)", figures_table(_figures(report)))
    if len(report.findings) > ROWS_MAX:
        print_table("findings by rule", rows_table(("rule", "findings"), report.counts.items()))
    _print_rows(
        "findings",
        ("severity", "rule", "subject", "detail"),
        [(_word(row.severity), row.rule, row.subject, row.detail) for row in by_severity(report.findings)],
    )
    _print_rows(
        "repairs",
        ("state", "action", "subject", "detail"),
        [(_word(step.state), step.action, step.subject, step.detail) for step in report.repairs],
    )
    _print_rows("undecided", ("what could not be told",), [(what,) for what in report.undecided])


def _figures(report: AuditReport) -> dict[str, Any]:
    pnl = {
        f"book PnL, {name.removeprefix(BOOK_PNL)}": amount
        for name, amount in report.figures.items()
        if name.startswith(BOOK_PNL)
    }
    return {
        "began": f"{time_text(report.started_at)} UTC",
        "run": report.run_id or None,
        **{f"{name} checked": count for name, count in report.checked.items()},
        "open trades": report.figures.get(OPEN_TRADES),
        "commits not journaled yet": report.figures.get(LAG_COMMITS),
        **pnl,
        "undecided": len(report.undecided),
        "findings": len(report.findings),
        **{f"- {severity}": count for severity, count in report.severities.items()},
    }


def _print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    title += f" (the first {ROWS_MAX} of {len(rows):,}; --json has all)" if len(rows) > ROWS_MAX else ""
    print_table(title, rows_table(columns, rows[:ROWS_MAX]))


def _word(word: Severity | RepairState) -> Text:
    return Text(word, style=_STYLES[word])
