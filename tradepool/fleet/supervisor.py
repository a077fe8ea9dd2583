"""Runs the fleet on one machine: starts every program, restarts what dies, ends all of it.

One thread does everything. The programs are tied to its life, so a supervisor that is killed takes the
fleet along; systemd or a container engine does this job in production.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from tradepool.errors import ResourceUnavailable
from tradepool.files.durable import FileLock
from tradepool.fleet import leash
from tradepool.fleet.programs import Program, environment, fleet_programs
from tradepool.logger import Logger
from tradepool.settings import Settings

__all__ = ["ProgramState", "Supervisor"]

log = Logger(__name__)

LOCK_NAME = "fleet.lock"
CHECK_EVERY_S = 0.2
RESTART_PAUSE_MIN_S = 0.5
RESTART_PAUSE_MAX_S = 30.0
STEADY_AFTER_S = 10.0
"""A program that ran this long is in no crash loop: when it dies, its pause is the first one again."""
STOP_CHECK_EVERY_S = 0.05
STOP_TIMEOUT_S = 45.0
"""Above the longest wait of a task, so that what is running finishes."""
LAST_LINE_BYTES_MAX = 2000
"""Of what a program said last, as much is told when it ends."""
LOG_BYTES_MAX = 64 << 20
"""A log beyond this is put aside, replacing the one before, whether or not its program goes on writing."""


class ProgramState(NamedTuple):
    """What `status` tells of one program; `pid` is None while it is not running."""

    name: str
    pid: int | None
    starts: int


class Supervisor:
    """Keeps the fleet of one pool running between `start` and `stop`. A context manager.

    Logs go to `data_dir`/logs, a file per program. `programs` replaces the whole fleet by others.
    """

    def __init__(self, settings: Settings, programs: Sequence[Program] | None = None) -> None:
        self._settings = settings
        wanted = fleet_programs(settings) if programs is None else programs
        log_dir = settings.data_dir / "logs"
        self._kept = [_Kept(program, environment(settings), log_dir) for program in wanted]
        self._log_dir = log_dir
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._hurried = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: FileLock | None = None

    def start(self) -> None:
        """Start every program and return; they may not be ready yet. What cannot be started is tried again.

        Raises: PoolLocked when the folder has a fleet already, ResourceUnavailable when it cannot be written.
        """
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ResourceUnavailable(f"{self._log_dir} cannot be written: {problem}") from problem
        self._lock = FileLock(self._settings.data_dir / LOCK_NAME)
        self._stopping.clear()
        self._hurried.clear()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:
            # Ctrl-C while the programs start: nobody else would end them.
            self.stop()
            raise

    def stop(self) -> None:
        """Ask every program to end, wait for 45 s at most per round, then kill; calling it twice is fine."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def hurry(self) -> None:
        """Have `stop`, also one that is under way, kill at once: what is unfinished is delivered again."""
        self._hurried.set()

    def status(self) -> list[ProgramState]:
        """What runs, in starting order."""
        return [kept.state() for kept in self._kept]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        """The thread that all programs are tied to."""
        try:
            for kept in self._kept:
                kept.start()
            self._started.set()
            while not self._stopping.wait(CHECK_EVERY_S):
                for kept in self._kept:
                    kept.restart_if_dead()
                    kept.bound_log()
        finally:
            self._started.set()
            _end([kept for kept in self._kept if not kept.program.ends_last], self._hurried)
            _end([kept for kept in self._kept if kept.program.ends_last], self._hurried)


class _Kept:
    """One program and its process."""

    def __init__(self, program: Program, variables: dict[str, str], log_dir: Path) -> None:
        self.program = program
        self._variables = {**variables, **program.environment}
        self._log = log_dir / f"{program.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._started_at = 0.0
        self._said_before_bytes = 0
        """How long the log was when it was started last."""
        self._pause_s = RESTART_PAUSE_MIN_S
        self._restart_at: float | None = None

    def start(self) -> None:
        """Start it; what keeps the system from that (no memory, no room for its log) may pass."""
        self._starts += 1
        self._started_at = time.monotonic()
        self._restart_at = None
        try:
            self._process = self._spawned()
        except OSError as problem:
            self._process = None
            self._start_later("program cannot be started", problem=str(problem))

    def restart_if_dead(self) -> None:
        if self._restart_at is not None:
            if time.monotonic() >= self._restart_at:
                self.start()
        elif self._process is not None and not self.is_alive():
            self._reap()
            if time.monotonic() - self._started_at >= STEADY_AFTER_S:
                self._pause_s = RESTART_PAUSE_MIN_S
            said = {"said": line} if (line := self._last_line()) else {}
            self._start_later("program ended", exit_code=self._process.returncode, **said)

    def bound_log(self) -> None:
        """Put the log aside when it is too long, under its program's hands.

        They append to it, so their next line is the first one of the emptied file; what they write between
        the copy's end and that is lost. On a disk that has no room for the copy the log is lost instead.
        """
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES_MAX:
                try:
                    shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                finally:
                    os.truncate(self._log, 0)

    def is_alive(self) -> bool:
        """Whether its process runs; one that has ended is not reaped by asking, so its id stays its own."""
        if self._process is None or self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def terminate(self) -> None:
        if self._process is not None and self.is_alive():
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Be done with it: what is still there of it, or of its children, is killed."""
        if self.is_alive():
            log.warning("program killed", program=self.program.name)
        self._reap()

    def state(self) -> ProgramState:
        process = self._process
        running = process is not None and process.returncode is None
        return ProgramState(self.program.name, process.pid if process and running else None, self._starts)

    def _spawned(self) -> subprocess.Popen[bytes]:
        tied = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid())]
        with self._log.open("ab") as out:
            self._said_before_bytes = out.tell()
            return subprocess.Popen(
                [*tied, sys.executable, *self.program.arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._variables,
                umask=self.program.umask,
                # Ctrl-C reaches a whole session; the supervisor alone decides in which order they end.
                start_new_session=True,
            )

    def _last_line(self) -> str:
        """The end of what it said in its last life: mostly the reason why that is over."""
        try:
            with self._log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                # A log that was put aside meanwhile begins anew.
                begin = self._said_before_bytes if self._said_before_bytes <= size else 0
                log.seek(max(begin, size - LAST_LINE_BYTES_MAX))
                lines = log.read().splitlines()
        except OSError:
            return ""
        return _in_words(next((line for line in reversed(lines) if line.strip()), b""))

    def _start_later(self, event: str, **about: object) -> None:
        """Note when to start it, and say so; each time in a row the pause doubles."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, RESTART_PAUSE_MAX_S)
        self._restart_at = time.monotonic() + pause_s
        told = {**about, "restart_in_s": pause_s, "log": str(self._log)}
        log.warning(event, program=self.program.name, starts=self._starts, **told)

    def _reap(self) -> None:
        """Kill what is left of its process group and take its exit code.

        A prefork worker that is killed leaves children that nobody gives work to, and nobody ends.
        """
        if self._process is None or self._process.returncode is not None:
            return
        # Before it is reaped: until then nobody else can have its id.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class _LogLine(msgspec.Struct):
    event: str
    problem: str = ""


def _in_words(line: bytes) -> str:
    """What a line of a log says, without the time and place that its JSON may have."""
    try:
        told = msgspec.json.decode(line, type=_LogLine)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return line.decode(errors="replace").strip()
    return f"{told.event}: {told.problem}" if told.problem else told.event.strip()


def _end(programs: Sequence[_Kept], hurried: threading.Event) -> None:
    for kept in programs:
        kept.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(kept.is_alive() for kept in programs) and time.monotonic() < deadline:
        if hurried.wait(STOP_CHECK_EVERY_S):
            break
    for kept in programs:
        kept.end()
