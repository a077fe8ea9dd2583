"""`status`: one look at a pool and its fleet."""

from __future__ import annotations

from typing import Any

import msgspec

from tradepool.broker import ChangeSender
from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import figures_table, print_json, print_table, rows_table, time_text
from tradepool.fleet.health import Health, read_health

__all__ = ["status"]


def status(*, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Show where the pool and its fleet stand. Exit 1 when something is wrong."""
    with open_pool(embedded) as pool:
        if embedded is None:
            with ChangeSender(pool.settings) as sender:
                health = read_health(pool, sender)
        else:
            health = read_health(pool, None)
    if as_json:
        print_json(msgspec.to_builtins(health) | {"ok": health.ok})
    else:
        _print_health(health)
    return OK if health.ok else FINDINGS


def _print_health(health: Health) -> None:
    figures: dict[str, Any] = {
        "server": health.server,
        "takes writes": "no" if health.is_fenced else "yes",
        "records (trades and ledgers)": health.records,
        "commits not journaled yet": health.journal_lag,
        **{f"waiting on {name}": depth for name, depth in health.queues.items()},
        "last audit": _told(health.last_audit),
        "last marks": _marks_told(health),
    }
    print_table("status", figures_table(figures))
    if health.problems:
        rows = [(problem.what, problem.cure) for problem in health.problems]
        print_table("problems", rows_table(("problem", "cure"), rows))


def _told(left_by_task: dict[str, Any] | None) -> str | None:
    """When a periodic task last ran, and whether it found something."""
    if left_by_task is None:
        return None
    at = time_text(left_by_task.get("at") or left_by_task.get("started_at"))
    return f"{at}, with findings" if left_by_task.get("ok") is False else at


def _marks_told(health: Health) -> str | None:
    """When the last marks were made and by what, how old they are, and what is wrong with their prices."""
    marks = health.last_marks
    if marks is None:
        return None
    counts = {"without a price": len(marks["missing"]), "at an old price": len(marks["stale"])}
    lacking = [f"{_symbols(count)} {what}" for what, count in counts.items() if count]
    made = f"{time_text(marks['at'])} by {marks['backend']}, {health.marks_age_s:,.0f} s ago"
    return ", ".join([made, *lacking])


def _symbols(count: int) -> str:
    return f"{count} symbol" if count == 1 else f"{count} symbols"
