"""What every measurement here has in common: a `measure`, rounds that alternate, medians, a command line.

A measurement is a module with one function

    measure(*, quick: bool) -> Numbers

and `run(measure)` below `if __name__ == "__main__"`. A name in `Numbers` ends in its unit (`_per_s`, `_ms`,
`_bytes`) or says `ratio`; what a rate is a ratio to was measured in the same run, on the same server.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "Numbers",
    "median_ratio",
    "medians",
    "per_second",
    "percentile",
    "percentiles_ms",
    "rounded",
    "rounds_of",
    "run",
    "seconds",
]

Numbers = dict[str, float]
"""Named results of one measurement."""

_WHOLE_FROM = 100
"""Numbers from here on are shown without decimals."""


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def per_second(work: Callable[[], object], count: int) -> float:
    """`count` over the time that `work` takes."""
    return count / seconds(work)


def rounds_of(rounds: int, **rates: Callable[[], float]) -> dict[str, list[float]]:
    """The rate that each of `rates` returns, in rounds that alternate between them.

    So whatever slows the machine for a while slows all of them.
    """
    results: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(rounds):
        for name, rate in rates.items():
            results[name].append(rate())
    return results


def medians(results: Mapping[str, Sequence[float]]) -> Numbers:
    """The median of each."""
    return {name: statistics.median(values) for name, values in results.items()}


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of one rate to the other of the same round."""
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def percentiles_ms(name: str, taken_s: Sequence[float]) -> Numbers:
    """`<name>_p50_ms` and `<name>_p99_ms` of what was taken in seconds."""
    return {f"{name}_p{percent}_ms": percentile(taken_s, percent) * 1e3 for percent in (50, 99)}


def rounded(value: float) -> str:
    """`value` for people: as many digits as mean something."""
    if abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 1 and value != round(value, 2) else f"{value:g}"


def run(measure: Callable[..., Numbers]) -> None:
    """The command line of a measurement: `--quick` for a first look, `--json` for programs.

    What else `measure` takes by name, all of it whole numbers, are options as well.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer trades and rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    names = [name for name in inspect.signature(measure).parameters if name != "quick"]
    for name in names:
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_args()
    numbers = measure(quick=given.quick, **{name: getattr(given, name) for name in names})
    if given.json:
        print(json.dumps(numbers))
        return
    width = max(map(len, numbers))
    for name, value in numbers.items():
        print(f"{name:<{width}}  {rounded(value):>14}")
