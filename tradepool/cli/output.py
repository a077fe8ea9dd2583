"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tradepool.model.money import CONTEXT, DECIMALS_MAX, plain
from tradepool.printable import printable

__all__ = [
    "counted",
    "figures_table",
    "print_json",
    "print_rows",
    "print_table",
    "progress_bar",
    "rows_table",
    "time_text",
]

_FINEST = Decimal(1).scaleb(-DECIMALS_MAX)
_WIDTH_PIPED = 200
"""Columns of a table that goes into a file or a pipe, where no terminal says how wide it is."""
_CELL_WIDTH_MIN = 12
"""A longer value may be folded down to this; in narrower columns nobody can read it."""
_CELL_FRAME = 3


def print_json(data: Any) -> None:
    """`data` as indented JSON; decimals in positional text."""
    typer.echo(json.dumps(data, indent=2, default=_json_text))


def print_table(title: str, table: Table) -> None:
    """The table under its title, as wide as the terminal."""
    console = _console()
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """The rows under their title: as a table, or where it is too narrow for one, row by row.

    Then each value has a line of its own, what is None is left out, and a rule stands between rows.
    """
    console = _console()
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max([len(name), *(min(row[place].cell_len, _CELL_WIDTH_MIN) for row in cells)])
        for place, name in enumerate(columns)
    ]
    if sum(widths) + _CELL_FRAME * len(widths) < console.width:
        print_table(title, rows_table(columns, rows))
        return
    console.print(Text(title, style="bold"), soft_wrap=True)
    for place, (row, texts) in enumerate(zip(rows, cells, strict=True)):
        if place:
            console.rule()
        for name, value, text in zip(columns, row, texts, strict=True):
            if value is not None:
                console.print(Text(f"{name}: ", style="bold").append_text(text), soft_wrap=True)


def counted(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, where that is a terminal; call it with what is done and how much there is in all,
    or None where that is not known.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def figures_table(figures: Mapping[str, Any]) -> Table:
    """Names and values, one pair a line; what is None is left out."""
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", overflow="fold")
    for name, value in figures.items():
        if value is not None:
            table.add_row(name, _cell(value))
    return table


def rows_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A table with a header; None shows as nothing."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def time_text(at_us: int | None) -> str | None:
    """µs since 1970 as UTC time, to the second."""
    if at_us is None:
        return None
    return datetime.fromtimestamp(at_us // 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_PIPED
    return console


def _cell(value: Any) -> Text:
    r"""A value for people, taken literally: a user may well be called `[red]`, or `\x1b[2J`."""
    match value:
        case None:
            return Text("")
        case Text():
            return value
        case Decimal():
            return Text(_number_text(value))
    return Text(printable(str(value)))


def _number_text(number: Decimal) -> str:
    """Never an exponent; quotients, which have as many places as one likes, with those of an amount."""
    exponent = number.as_tuple().exponent
    is_long = isinstance(exponent, int) and -exponent > DECIMALS_MAX
    return plain(number.quantize(_FINEST, context=CONTEXT) if is_long else number)


def _json_text(value: object) -> str:
    match value:
        case Decimal():
            return plain(value)
        case Path():
            return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
