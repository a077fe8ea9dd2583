"""Runs every check on this machine's CUDA device; `make gpu-test`.

Exits with 0 when all passed, and when there is no device, which is said and is no pass; else with 1. What is
printed is kept in a file too, where there is a device: `results.py`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import partial

from tests.gpu.checks import CHECKS
from tests.gpu.devices import NoDevice, a_forked_child_goes_on_without_the_device, real_machine
from tests.gpu.results import Results
from tradepool.pnl.cuda.device import Arithmetic


def main() -> int:
    """Run the checks, print a line for each."""
    try:
        machine, described = real_machine()
    except NoDevice as problem:
        print(f"no CUDA device: skipped, nothing was tested ({problem})")
        return 0
    results = Results(f"checks, cupy {machine.cupy.__version__}", described)
    checks: dict[str, Callable[[], None]] = {
        f"{check.__name__}, {arithmetic} arithmetic": partial(check, machine, arithmetic)
        for check in CHECKS
        for arithmetic in Arithmetic
    }
    # Last, because the device is this process's own from here on.
    checks["a_forked_child_goes_on_without_the_device"] = a_forked_child_goes_on_without_the_device
    failed = 0
    for name, check in checks.items():
        try:
            check()
        except Exception:  # noqa: BLE001 - whatever it is, the other checks are still wanted
            failed += 1
            results.line(f"FAILED  {name}\n{traceback.format_exc()}")
        else:
            results.line(f"passed  {name}")
    results.line(f"{failed} of {len(checks)} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
