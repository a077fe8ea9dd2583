"""Where the processor time of one change goes: server, journal process, producers; and what that allows.

    python bench/processor_time.py

The same rounds as `durable_adds.py` and `updates.py`. `_bound_per_s` is what this machine's processors could
do at best if nothing ever waited: their number over the sum of the three. Unlike a rate it hardly changes
when others use the machine, so it says what a faster machine, or more processors, would give.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from bench.measurement import Numbers, run
from bench.pool_load import BATCH, LoadedPool, Work, add_work, mixed_add_work
from bench.updates import fill_work, update_work

__all__ = ["measure"]

ROUNDS = 5
WORKS: dict[str, Work] = {
    "add": add_work,
    "mixed_add": mixed_add_work,
    "update": update_work,
    "fill": fill_work,
}


def measure(*, quick: bool) -> Numbers:
    """µs of each kind of process for each kind of change, medians, and the bound that follows."""
    count = 2_000 if quick else 10_000
    numbers: Numbers = {}
    with tempfile.TemporaryDirectory() as folder, LoadedPool(Path(folder)) as loaded:
        loaded.rate(add_work, BATCH)
        for name, work in WORKS.items():
            spent = [loaded.processor_us(work, count) for _ in range(2 if quick else ROUNDS)]
            of_each = {role: statistics.median(each[role] for each in spent) for role in spent[0]}
            numbers |= {f"{name}_{role}": of_one for role, of_one in of_each.items()}
            numbers[f"{name}_bound_per_s"] = (os.cpu_count() or 1) * 1e6 / sum(of_each.values())
    return numbers


if __name__ == "__main__":
    run(measure)
