"""`bench`: a small measurement of this machine, on a pool of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tradepool.bench.figure import Figure
from tradepool.bench.measures import measure_embedded, measure_fleet
from tradepool.bench.scratch import scratch_folder
from tradepool.cli.exits import OK
from tradepool.cli.opening import AsJson, warnings_on_stderr
from tradepool.cli.output import print_json, print_rows

__all__ = ["bench"]

_SECONDS = 10.0


def bench(
    *,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Start workers as well, and measure through them.")
    ] = False,
    beside: Annotated[
        Path | None,
        typer.Option("--in", metavar="DIR", help="Measure the disk of DIR, in a new folder in it."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=120, help="How long it measures in all.")] = _SECONDS,
    as_json: AsJson = False,
) -> int:
    """Measure what this machine makes of a pool: adds a second, latency, the disk's sync, marks.

    It always uses a server and a folder of its own, removed afterwards; no pool's books are touched, whatever
    the environment names. Each number stands beside what disk or server do bare in the same run.
    """
    with warnings_on_stderr(), scratch_folder(beside) as folder:
        figures = (measure_fleet if fleet else measure_embedded)(folder, seconds)
    if as_json:
        print_json({"fleet": fleet, "seconds": seconds, "figures": msgspec.to_builtins(figures)})
    else:
        title = "a fleet of its own" if fleet else "an embedded pool of its own"
        print_rows(f"bench: {title}", ("what", "measured", "", "compared with", "ratio"), _rows(figures))
    return OK


def _rows(figures: list[Figure]) -> list[tuple[str | None, ...]]:
    return [
        (
            figure.what,
            f"{figure.value:,.0f}" if figure.unit == "/s" else f"{figure.value:,.2f}",
            figure.unit,
            figure.compared_with,
            None if figure.ratio is None else f"{figure.ratio:,.3g}",
        )
        for figure in figures
    ]
