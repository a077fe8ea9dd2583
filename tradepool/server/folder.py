"""The folder of an embedded server: locked by its owner, swept of orphans, configured."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

from tradepool.errors import PoolLocked, ResourceUnavailable, StoreUnavailable

__all__ = ["ServerFolder", "included", "quoted"]

_ORPHAN_TIMEOUT_S = 10.0
_POLL_S = 0.01


class ServerFolder:
    """`data_dir`/server: configuration, log, pid file and append-only file of one server.

    Locked from its making until `unlock`, or until this process dies.

    Raises: PoolLocked when another process holds the lock, ResourceUnavailable when it cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir.absolute() / "server"
        self._config = self._path / "server.conf"
        self.log = self._path / "server.log"
        self._pid_file = self._path / "server.pid"
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._path / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise ResourceUnavailable(
                f"cannot write to {data_dir}: {problem.strerror}; choose another data folder"
            ) from problem
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            self.unlock()
            raise PoolLocked(f"another process has {data_dir} open") from problem

    @property
    def config(self) -> str:
        """The configuration, as it is named to the server."""
        return _literal(self._config)

    def unlock(self) -> None:
        """Let another process have the folder; calling it twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def stop_orphan(self) -> None:
        """Stop a server that a killed owner left behind in this folder: politely, then for good.

        Raises: StoreUnavailable when it outlives both.
        """
        pid = self._orphan()
        if pid is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            deadline = time.monotonic() + _ORPHAN_TIMEOUT_S
            while time.monotonic() < deadline:
                if self._orphan() is None:
                    return
                time.sleep(_POLL_S)
        raise StoreUnavailable(f"process {pid}, an orphaned server of {self._path}, cannot be stopped")

    def password(self) -> str:
        """The folder's password, made at first use; a file only this user can read."""
        path = self._path / "server.password"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii")

    def write_config(self, lines: list[str]) -> None:
        """Write the configuration: the given lines, then what every private server has, which wins."""
        written = [
            *lines,
            f"dir {quoted(self._path)}",
            f"pidfile {quoted(self._pid_file)}",
            # The command line keeps naming this folder, so an orphan is told from a process that got its id.
            "set-proc-title no",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        _write_private(self._config, "\n".join(written) + "\n")

    def log_size(self) -> int:
        """Bytes of the log so far, so that `why_not_started` reads only what came after."""
        return self.log.stat().st_size if self.log.exists() else 0

    def why_not_started(self, log_start: int) -> Exception:
        """The error for a server that ended while starting, with its own last words."""
        words = (
            self.log.read_text(encoding="utf-8", errors="replace")[log_start:].strip() or "it said nothing"
        )
        last = words.splitlines()[-1]
        if "bind" in words.lower() and "in use" in words.lower():
            return ResourceUnavailable(f"the server's address is taken: {last}; choose another port")
        return StoreUnavailable(f"the embedded server stopped while starting: {last} (more in {self.log})")

    def _orphan(self) -> int | None:
        """The pid in the pid file, if that process is a server of this folder and not a later namesake."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.config) in _command_line(pid) else None


def _command_line(pid: int) -> bytes:
    """The arguments of a live process; empty for a dead one."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        pass
    if Path("/proc/self").exists():
        return b""
    listing = subprocess.run(["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=False)
    return listing.stdout


def _write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, also while it is written."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(
        os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    beside.replace(path)


def included(path: Path) -> str:
    """The line of a configuration that takes in another one."""
    return f"include {quoted(_literal(path.absolute()))}"


def _literal(path: Path) -> str:
    # The server takes the name of a configuration for a pattern.
    return glob.escape(str(path))


def quoted(path: Path | str) -> str:
    """A path as the server's configuration quotes it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
