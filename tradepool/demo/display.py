"""What the demo shows: the fleet while it works, and what came of it at the end."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from rich.console import Group
from rich.panel import Panel
from rich.table import Table

from tradepool.audit.report import AuditReport
from tradepool.demo.proof import Proof
from tradepool.fleet.health import Health

__all__ = ["DemoResult", "Reading", "render", "render_result"]

_SHOWN_MAX = 5


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the running demo."""

    phase: str
    elapsed_s: float
    accepted: int
    pending: int
    journaled_per_s: float
    """Changes confirmed as journaled, per second since the look before."""
    health: Health
    programs: Mapping[str, bool]
    """By name: whether it runs."""
    flower: str


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo ends with."""

    proof: Proof
    journaled: int
    """Changes confirmed as journaled."""
    trading_s: float
    unconfirmed: int
    rejected: tuple[str, ...]
    """What the fleet refused though the client had accepted it."""
    refused: tuple[str, ...]
    """Rows of an import file that no pool would take."""
    users: Mapping[str, Mapping[str, Decimal]]
    """Realised PnL by user and currency."""

    @property
    def ok(self) -> bool:
        """Whether every accepted trade is everywhere, nothing is under way and nothing was refused late."""
        return self.proof.ok and not self.unconfirmed and not self.rejected

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON-able data; amounts as text."""
        proof = self.proof
        return {
            "ok": self.ok,
            "accepted": proof.accepted,
            "journaled": self.journaled,
            "trading_s": self.trading_s,
            "missing_in_redis": sorted(proof.missing_in_redis),
            "missing_in_journal": sorted(proof.missing_in_journal),
            "missing_in_snapshot": sorted(proof.missing_in_snapshot),
            "findings": proof.audit.counts,
            "undecided": proof.audit.undecided,
            "unconfirmed": self.unconfirmed,
            "rejected": self.rejected,
            "refused": self.refused,
            "realised_pnl": {
                user: {currency: str(amount) for currency, amount in pnl.items()}
                for user, pnl in self.users.items()
            },
        }


def render(reading: Reading) -> Panel:
    """The reading as one panel."""
    return Panel(
        Group(_flow(reading), _programs(reading)),
        title=f"tradepool demo · {reading.phase}",
        subtitle=f"{reading.elapsed_s:.0f} s · Ctrl-C stops everything",
    )


def render_result(outcome: DemoResult) -> Table:
    """The outcome as one table."""
    proof = outcome.proof
    table = Table(title="tradepool demo", show_header=False, title_justify="left")
    rate = outcome.journaled / outcome.trading_s if outcome.trading_s else 0.0
    table.add_row("trades accepted", f"{proof.accepted:,}")
    table.add_row("changes journaled", f"{outcome.journaled:,} ({rate:,.0f}/s)")
    table.add_row("missing in Redis", _count(proof.missing_in_redis))
    table.add_row("missing in trade_pool.log", _count(proof.missing_in_journal))
    table.add_row("missing in trades.json", _count(proof.missing_in_snapshot))
    table.add_row("check_all_trades", _audit(proof.audit))
    table.add_row("unconfirmed changes", _count(range(outcome.unconfirmed)))
    table.add_row("refused by the fleet", _listed(outcome.rejected))
    if outcome.refused:
        table.add_row("refused rows of the file", _listed(outcome.refused))
    for user, pnl in list(outcome.users.items())[: _SHOWN_MAX * 2]:
        table.add_row(f"realised PnL of {user}", "  ".join(f"{v:+f} {c}" for c, v in pnl.items()))
    table.add_row(
        "result", "[green]every accepted trade is in all three places[/]" if outcome.ok else "[red]FAILED[/]"
    )
    return table


def _flow(reading: Reading) -> Table:
    health = reading.health
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_row("trades accepted", f"{reading.accepted:,}   {reading.pending:,} changes under way")
    table.add_row("journaled", f"{reading.journaled_per_s:,.0f} changes/s   {health.records:,} records")
    table.add_row("queue depth", "  ".join(f"{name} {queue.depth}" for name, queue in health.queues.items()))
    table.add_row("journal lag", f"{health.journal_lag:,} outbox entries")
    table.add_row("open book PnL", _totals(health.last_marks))
    table.add_row("last audit", _last_audit(health.last_audit))
    table.add_row("Flower", reading.flower)
    return table


def _programs(reading: Reading) -> str:
    lights = (f"[{'green' if runs else 'red'}]●[/] {name}" for name, runs in reading.programs.items())
    return "  ".join(lights)


def _totals(marks: Mapping[str, Any] | None) -> str:
    if marks is None:
        return "not marked yet"
    totals = marks["totals"]
    return (
        "  ".join(f"{Decimal(value):+,f} {currency}" for currency, value in totals.items()) or "nothing open"
    )


def _last_audit(audit: Mapping[str, Any] | None) -> str:
    if audit is None:
        return "none yet"
    return f"{audit['level']}: " + ("nothing found" if audit["ok"] else f"[red]{audit['counts']}[/]")


def _audit(report: AuditReport) -> str:
    what = f"{report.checked['records']:,} records, {report.checked['shards']} shards"
    if report.ok and not report.undecided:
        return f"nothing found in {what}"
    return f"[red]{dict(report.counts)} {', '.join(report.undecided)}[/]"


def _count(items: frozenset[str] | range) -> str:
    return "0" if not items else f"[red]{len(items):,}[/]"


def _listed(lines: tuple[str, ...]) -> str:
    if not lines:
        return "0"
    more = f"\n… and {len(lines) - _SHOWN_MAX} more" if len(lines) > _SHOWN_MAX else ""
    return f"{len(lines)}\n" + "\n".join(line.replace("[", r"\[") for line in lines[:_SHOWN_MAX]) + more
