"""`status` and `health`: one look at a pool and its fleet, as a screen and as a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import typer

from tradepool.audit.parts.run_board import RunningAudit
from tradepool.cli.exits import FINDINGS, OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import figures_table, print_json, print_table, rows_table, time_text
from tradepool.fleet.dead_letters import DeadLetters
from tradepool.fleet.health import Health, QueueHealth, read_health
from tradepool.fleet.problems import parked_problems
from tradepool.fleet.state import Watcher
from tradepool.settings import load_settings

__all__ = ["health", "status"]


def status(*, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Show where the pool and its fleet stand. Exit 1 when something is wrong."""
    found = _looked_at(embedded)
    if as_json:
        print_json(_form(found))
    else:
        _print_health(found)
    return _code(found)


def health(*, embedded: Embedded = None, as_json: AsJson = False) -> int:
    """Say in one line whether all is well, for probes. Exit 0: it is; 1: not so; 3: the store is away."""
    found = _looked_at(embedded)
    if as_json:
        form = _form(found)
        print_json({name: form[name] for name in ("ok", "problems")})
    else:
        typer.echo(_line(found))
    return _code(found)


def _looked_at(embedded: Path | None) -> Health:
    if embedded is None:
        with Watcher(load_settings()) as watcher:
            return read_health(watcher)
    with open_pool(embedded) as pool, Watcher(pool.settings, has_fleet=False) as watcher:
        found = read_health(watcher)
        with DeadLetters(pool.settings) as dead:
            # What a fleet on this folder has left is there also while none runs.
            parked = tuple(parked_problems(dead.count()))
    return msgspec.structs.replace(found, problems=(*found.problems, *parked))


def _form(found: Health) -> dict[str, Any]:
    form: dict[str, Any] = msgspec.to_builtins(found)
    return {"ok": found.ok, **form}


def _code(found: Health) -> int:
    return OK if found.ok else FINDINGS


def _line(found: Health) -> str:
    if found.ok:
        return "ok"
    first, *more = found.problems
    others = f"; and {len(more)} more: 'tradepool status' has them" if more else ""
    return f"{first.what}; {first.cure}{others}"


def _print_health(found: Health) -> None:
    figures: dict[str, Any] = {
        "server": found.server,
        "takes writes": "no" if found.is_fenced else "yes",
        "records (trades and ledgers)": found.records,
        "commits not journaled yet": _lag_told(found),
        "messages being worked on": found.unacked,
        "last audit": _told(found.last_audit),
        **{f"{run.level} audit under way": _progress(run) for run in found.running_audits},
        "last marks": _marks_told(found),
        "last snapshot": None if found.snapshot_age_s is None else f"{found.snapshot_age_s:,.0f} s ago",
    }
    print_table("status", figures_table(figures))
    if found.queues:
        rows = [_queue_row(name, queue) for name, queue in found.queues.items()]
        print_table("queues", rows_table(("queue", "workers", "waiting", "the next for"), rows))
    if found.problems:
        rows = [(problem.what, problem.cure) for problem in found.problems]
        print_table("problems", rows_table(("problem", "cure"), rows))


def _lag_told(found: Health) -> str:
    if not found.journal_lag:
        return "0"
    return f"{found.journal_lag:,}, the first for {found.journal_lag_s:,.1f} s"


def _queue_row(name: str, queue: QueueHealth) -> tuple[Any, ...]:
    return name, queue.workers, queue.depth, None if queue.age_s is None else f"{queue.age_s:,.1f} s"


def _told(left_by_task: dict[str, Any] | None) -> str | None:
    """When a periodic task last ran, and whether it found something."""
    if left_by_task is None:
        return None
    at = time_text(left_by_task.get("at") or left_by_task.get("started_at"))
    return f"{at}, with findings" if left_by_task.get("ok") is False else at


def _progress(run: RunningAudit) -> str:
    return f"{run.done} of {run.parts} parts, since {time_text(run.started_at)}"


def _marks_told(found: Health) -> str | None:
    """When the last marks were made and by what, how old they are, and what is wrong with their prices."""
    marks = found.last_marks
    if marks is None:
        return None
    counts = {"without a price": len(marks["missing"]), "at an old price": len(marks["stale"])}
    lacking = [f"{_symbols(count)} {what}" for what, count in counts.items() if count]
    made = f"{time_text(marks['at'])} by {marks['backend']}, {found.marks_age_s:,.0f} s ago"
    return ", ".join([made, *lacking])


def _symbols(count: int) -> str:
    return f"{count} symbol" if count == 1 else f"{count} symbols"
