"""Processes forked from the warmed one: no second of imports for each, and none survives its parent."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["Child", "die_with_parent"]

CRASHED = 70
"""Exit status of a child whose own code raised."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, in whatever way."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A forked process that runs `main` and exits with what it returns; what it prints goes to `log`."""

    def __init__(self, name: str, main: Callable[[], int], log: Path) -> None:
        self.name = name
        self.exit_code: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _run(main, log, parent)
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """Ready to read once the process has ended."""
        return self._pidfd

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended(status)
        return self.exit_code

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._ended(os.waitpid(self.pid, 0)[1])

    def _ended(self, status: int) -> None:
        self.exit_code = os.waitstatus_to_exitcode(status)
        os.close(self._pidfd)


def _run(main: Callable[[], int], log: Path, parent: int) -> None:
    code = CRASHED
    try:
        die_with_parent()
        if os.getppid() == parent:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            random.seed()
            code = main()
    except BaseException:  # noqa: BLE001 - the process boundary: what escapes here is the child's result
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
