"""A private Redis or Valkey server that lives and dies with the process that started it.

    owner ──pipe──▶ guard (sh) ──child──▶ server

The guard starts the server and reads from a pipe that the owner holds and never writes. When the
owner ends in whatever way, the kernel closes the pipe and the guard asks the server to stop, which
flushes its append-only file. If the guard was killed as well, the next start finds the orphan by its
pid file and stops it first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket as sockets
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self, cast

import redis

from tradepool.errors import Misconfigured, ResourceUnavailable, StoreUnavailable
from tradepool.server.binary import find_server
from tradepool.server.folder import ServerFolder, included, quoted
from tradepool.settings import Settings, load_settings
from tradepool.store.connection import connect

__all__ = ["EmbeddedServer", "free_port"]

_START_TIMEOUT_S = 60.0
"""Bounds the loading of a large append-only file."""
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.01
_SOCKET_PATH_BYTES_MAX = 100
"""Unix socket paths end at 104 bytes on macOS and at 108 on Linux."""

_OF_OTHER_SERVERS = MappingProxyType(
    dict.fromkeys(
        (
            "redis_username",
            "redis_password",
            "redis_password_file",
            "broker_url",
            "broker_username",
            "broker_password",
            "broker_password_file",
        )
    )
)
"""What the environment says of servers; the URL has all there is to know of this one."""

_GUARD = r"""
trap '' HUP INT
exec 3<&0 </dev/null
"$1" "$2" >>"$3" 2>&1 3<&- &
server=$!
trap 'kill -TERM "$server"' TERM
echo "$server"
exec >/dev/null 2>&1
(
  read -r _ <&3
  kill -TERM "$server"
  waited=0
  while kill -0 "$server"; do
    if [ "$waited" -eq 10 ]; then kill -KILL "$server"; fi
    waited=$((waited + 1))
    sleep 1
  done
) &
watcher=$!
while kill -0 "$server"; do wait "$server"; done
kill "$watcher"
if [ -n "$4" ]; then rm -f "$4/server.sock"; rmdir "$4"; fi
"""


class EmbeddedServer:
    """A started server with its append-only file (fsync every second) under `data_dir`/server.

    It listens on a unix socket only its user can reach: `socket`, or one in a private temporary
    folder. With `port` it listens on 127.0.0.1 instead (0: any free port) behind a random password,
    which is kept in `data_dir` so that a restart has the same address. `config` is a configuration file
    to begin with and `overrides` are lines on top of it; what makes the server private wins. Returns
    once the server answers. Dies with this process, also by kill -9 (and with children forked from it,
    which hold the same pipe). A context manager.

    Raises: PoolLocked when another process runs a server on `data_dir`, Misconfigured when no server
    program is found, ResourceUnavailable when the folder cannot be written or the port is taken,
    StoreUnavailable when the server does not come up.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        socket: Path | None = None,
        port: int | None = None,
        config: Path | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        if socket is not None and port is not None:
            raise Misconfigured("an embedded server listens on a socket or on a port, not on both")
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0
        self._private_dir = ""
        self._binary = find_server()
        self._folder = ServerFolder(data_dir)
        self._overrides = [*([included(config)] if config else []), *overrides]
        try:
            self._folder.stop_orphan()
            self._listen(socket, port)
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it listens, for `Settings.redis_url`; holds the password of a port."""
        return self._url

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._pid

    def client(self) -> redis.Redis:
        """A new client of this server; the caller closes it."""
        return cast("redis.Redis", connect(self.settings()))

    def settings(self, **given: Any) -> Settings:
        """The settings of the environment and those `given`, for this server as store and as broker.

        Whatever other servers the environment names, and the logins for them, are left out.

        Raises: Misconfigured.
        """
        return load_settings(**_OF_OTHER_SERVERS | {"redis_url": self.url} | given)

    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        return self._guard is not None and self._guard.poll() is None

    def start_again(self) -> None:
        """Start a server that has died, on what it had flushed, at the same address; returns once it answers.

        Raises: StoreUnavailable, ResourceUnavailable; then it is not running and this may be repeated.
        """
        self._end_process()
        self._folder.stop_orphan()
        if self._private_dir:
            _make_private(Path(self._private_dir))
        try:
            self._start()
        except BaseException:
            self._end_process()
            raise

    def stop(self) -> None:
        """Flush, stop the server and let go of the folder; calling it twice is fine."""
        self._end_process()
        self._folder.unlock()

    def _end_process(self) -> None:
        if self._guard is not None:
            _end(self._guard, self._pid)
            self._guard = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self, socket: Path | None, port: int | None) -> None:
        """Choose the address and write the configuration that listens on it."""
        if port is not None:
            port = free_port(port)
            password = self._folder.password()
            self._url = f"redis://:{password}@127.0.0.1:{port}/0"
            self._write_config(["bind 127.0.0.1", f"port {port}", f"requirepass {password}"])
            return
        if socket is None:
            self._private_dir = tempfile.mkdtemp(prefix="tradepool-")
            socket = Path(self._private_dir) / "server.sock"
        path = socket.absolute()
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES_MAX:
            raise Misconfigured(f"{path} is too long for a unix socket; choose a shorter path or none")
        self._url = f"unix://{path}?db=0"
        self._write_config(["port 0", f"unixsocket {quoted(path)}", "unixsocketperm 700"])

    def _write_config(self, listen: list[str]) -> None:
        """Later lines win: the given file, then its overrides, then what makes the server private."""
        self._folder.write_config([*self._overrides, *listen])

    def _start(self) -> None:
        log_start = self._folder.log_size()
        self._guard = subprocess.Popen(
            [
                "/bin/sh",
                "-c",
                _GUARD,
                "sh",
                self._binary,
                self._folder.config,
                self._folder.log,
                self._private_dir,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches a whole session; the owner alone decides when the server ends.
            start_new_session=True,
        )
        with _pipe(self._guard.stdout) as answer:
            self._pid = int(answer.readline())
        self._wait_ready(self._guard, log_start)

    def _wait_ready(self, guard: subprocess.Popen[str], log_start: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        with contextlib.closing(redis.Redis.from_url(self._url, protocol=2, retry=None)) as client:
            while time.monotonic() < deadline:
                if guard.poll() is not None:
                    raise self._folder.why_not_started(log_start)
                if _answers(client, self._pid):
                    return
                time.sleep(_POLL_S)
        raise StoreUnavailable(f"the embedded server did not answer within {_START_TIMEOUT_S:.0f} s")


def free_port(wanted: int = 0, *, setting: str = "") -> int:
    """`wanted` (0: any), if nobody listens on it now. `setting`: the variable that chooses it, if one does.

    Raises: ResourceUnavailable when it is taken.
    """
    with sockets.socket() as probe:
        # As the server does: an address in TIME_WAIT is free.
        probe.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError) as problem:
            cure = f"set {setting} to another port" if setting else "choose another port"
            raise ResourceUnavailable(f"port {wanted} cannot be used: {problem}; {cure}") from problem
        port: int = probe.getsockname()[1]
        return port


def _make_private(folder: Path) -> None:
    """Make the folder of the socket again, which goes with the server, unless its guard could not."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            raise StoreUnavailable(
                f"{folder} is somebody else's now; close the pool and open it again"
            ) from None


def _answers(client: redis.Redis, pid: int) -> bool:
    """Whether it is this very server that answers, done with loading."""
    try:
        client.ping()
        return bool(client.info("server")["process_id"] == pid)
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def _end(guard: subprocess.Popen[str], server_pid: int) -> None:
    _pipe(guard.stdin).close()
    try:
        guard.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # The guard has not reaped it yet, so the id is still this server's.
        os.kill(server_pid, signal.SIGKILL)
        guard.wait()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
