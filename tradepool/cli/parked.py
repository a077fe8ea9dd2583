"""`replay-dead`: what the fleet refused, shown, sent again or discarded."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import Annotated

import msgspec
import typer

from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, Embedded, open_pool
from tradepool.cli.output import counted, figures_table, print_json, print_table, rows_table, time_text
from tradepool.errors import Misconfigured
from tradepool.fleet.dead_letters import DISCARDED_NAME, DeadLetter, DeadLetters, Wanted
from tradepool.settings import load_settings

__all__ = ["replay_dead"]


def replay_dead(
    *,
    only_list: Annotated[
        bool, typer.Option("--list", help="Show what is meant, and where it would be sent; change nothing.")
    ] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard",
            help="Do not send it, take it away for good; needs --task, --reason or --id. "
            f"{DISCARDED_NAME} in the data folder keeps it.",
        ),
    ] = False,
    task: Annotated[str | None, typer.Option(help="Only those of this task, as add_trade.")] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="Only those with this error (UnknownTrade), or this text in its reason."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--id", help="Only those of this task, command, trade, user or reservation id."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most, oldest first.")] = None,
    embedded: Embedded = None,
    as_json: AsJson = False,
) -> int:
    """Send the fleet's parked commands again, under their old ids and times, once their reason is gone.

    With --embedded they wait on the queues of that server until 'tradepool up --embedded' runs its fleet.
    """
    wanted = Wanted(task=task, reason=reason, name=name)
    if discard and wanted == Wanted():
        raise Misconfigured("--discard: say what; give --task, --reason or --id, and --list to see it first")
    with ExitStack() as stack:
        settings = load_settings() if embedded is None else stack.enter_context(open_pool(embedded)).settings
        dead = stack.enter_context(DeadLetters(settings))
        if only_list:
            _show(list(islice(dead.letters(wanted), limit)), as_json=as_json)
            return OK
        figures = _done(dead, wanted, limit, discard=discard)
        if wanted != Wanted() and not any(figures.values()):
            typer.echo(f"no dead letter fits; {_parked(dead)}", err=True)
    if as_json:
        print_json(figures)
    else:
        print_table("dead letters", figures_table(figures))
    return OK


def _done(dead: DeadLetters, wanted: Wanted, limit: int | None, *, discard: bool) -> dict[str, int]:
    if discard:
        return {"discarded": dead.discard(wanted, limit=limit)}
    return dead.replay(wanted, limit=limit)._asdict()


def _parked(dead: DeadLetters) -> str:
    """Which tasks' letters there are, for whoever has mistyped one."""
    tasks = sorted({letter.task or "(none)" for letter in dead.letters()})
    return f"parked are some of {', '.join(tasks)}" if tasks else "none is parked"


def _show(letters: list[DeadLetter], *, as_json: bool) -> None:
    if as_json:
        print_json([msgspec.to_builtins(letter) | {"queue": letter.queue} for letter in letters])
        return
    rows = [
        (time_text(letter.parked_at), letter.task, letter.task_id, letter.queue or "stays", _reason(letter))
        for letter in letters
    ]
    titles = ("parked", "task", "id", "goes to", "reason")
    print_table(counted(len(rows), "dead letter"), rows_table(titles, rows))


def _reason(letter: DeadLetter) -> str:
    parts = (letter.reason.get(name, "") for name in ("error", "field", "problem", "value"))
    return " · ".join(filter(None, parts))
