"""A real server that can be killed, robbed of the end of its append-only file, and started again."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import redis

from tests.faults.simulator.children import die_with_parent
from tests.waiting import eventually
from tradepool.server.binary import find_server

__all__ = ["ServerProcess"]

_CONFIG = """port 0
unixsocket {socket}
unixsocketperm 700
dir {folder}
save ""
appendonly yes
appendfsync everysec
auto-aof-rewrite-percentage 0
maxmemory-policy noeviction
"""
_END_TIMEOUT_S = 20


class ServerProcess:
    """A server on the unix socket `socket`, with its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.socket = folder / "server.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._config = folder / "server.conf"
        self._config.write_text(_CONFIG.format(socket=self.socket, folder=folder), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._folder / "server.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it; it may not answer yet."""
        with (self._folder / "server.log").open("ab") as out:
            self._process = subprocess.Popen(
                [find_server(), self._config],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - the simulator has one thread
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Return once it answers."""
        with self.client() as client:
            eventually(lambda: _answers(client))

    def client(self, *, timeout_s: float = _END_TIMEOUT_S) -> redis.Redis:
        """A client that goes straight to it and tries once; the caller closes it."""
        return redis.Redis.from_url(self.url, protocol=2, socket_timeout=timeout_s, retry=None)

    def kill(self) -> None:
        """Kill -9, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_END_TIMEOUT_S)
            self._process = None

    def lose_end(self, choose: random.Random, bytes_max: int) -> int:
        """Cut up to `bytes_max` off the append-only file of the dead server; how many it were."""
        files = sorted(self._folder.glob("appendonlydir/*.incr.aof"), key=_number)
        if not files:
            return 0
        size = files[-1].stat().st_size
        lost = choose.randint(0, min(bytes_max, size))
        with files[-1].open("r+b") as file:
            file.truncate(size - lost)
        return lost

    def lose_everything(self) -> None:
        """Remove the append-only files of the dead server."""
        shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)


def _number(path: Path) -> int:
    found = re.search(r"\.(\d+)\.incr\.aof$", path.name)
    return int(found[1]) if found else 0


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False
