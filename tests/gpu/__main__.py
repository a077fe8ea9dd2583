"""Runs every check on this machine's CUDA device; `make gpu-test`.

Exits with 0 when all passed, and when there is no device, which is said and is no pass; else with 1.
"""

from __future__ import annotations

import sys
import time
import traceback

from tests.gpu.checks import CHECKS
from tests.gpu.devices import NoDevice, real_machine
from tradepool.pnl.cuda_device import Arithmetic


def main() -> int:
    """Run the checks, print a line for each."""
    try:
        machine, described = real_machine()
    except NoDevice as problem:
        print(f"no CUDA device: skipped, nothing was tested ({problem})")
        return 0
    print(f"device: {described}; {time.strftime('%Y-%m-%d')}")
    failed = 0
    for check in CHECKS:
        for arithmetic in Arithmetic:
            name = f"{check.__name__}, {arithmetic} arithmetic"
            try:
                check(machine, arithmetic)
            except Exception:  # noqa: BLE001 - whatever it is, the other checks are still wanted
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}")
            else:
                print(f"passed  {name}")
    print(f"{failed} of {len(CHECKS) * len(Arithmetic)} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
