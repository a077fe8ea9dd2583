"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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

__all__ = ["figures_table", "print_json", "print_table", "progress_bar", "rows_table", "time_text"]

_FINEST = Decimal(1).scaleb(-DECIMALS_MAX)
_WIDTH_PIPED = 200
"""Columns of a table that goes into a file or a pipe, where no terminal says how wide it is."""


def print_json(data: Any) -> None:
    """`data` as indented JSON; decimals in positional text."""
    typer.echo(json.dumps(data, indent=2, default=_json_text))


def print_table(title: str, table: Table) -> None:
    """The table under its title, as wide as the terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_PIPED
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal; call it with what is done and how much there is in all."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int) -> None:
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


def _cell(value: Any) -> Text:
    """A value for people, taken literally: a user may well be called `[red]`."""
    match value:
        case None:
            return Text("")
        case Decimal():
            return Text(_number_text(value))
    return Text(str(value))


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
