"""Runs a program that ends when its parent does: `python leash.py PARENT_PID PROGRAM ARGUMENT…`.

The kernel sends SIGTERM when the thread that started this process ends (PR_SET_PDEATHSIG), however it
ends; the setting survives exec. Run as a script, so that only the standard library is loaded.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the program in `arguments[1:]`; exits at once if the parent is gone."""
    parent, program = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl failed: {os.strerror(ctypes.get_errno())}")
    # The parent may have ended before the setting was made.
    if os.getppid() != parent:
        sys.exit("the parent has ended")
    os.execv(program[0], program)  # noqa: S606 - the supervisor's own argument list


if __name__ == "__main__":
    main(sys.argv[1:])
