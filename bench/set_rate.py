"""The denominator: SETs a second of a server asked as `redis-benchmark -t set -P 100 -d SIZE` asks.

    python bench/set_rate.py

Processes of their own hold several connections each. A connection has one pipeline of 100 SETs, packed
once; it is sent whole and its 100 answers are counted before it is sent again. All connections of a process
are sent before the first of them is read, so the server always finds work. Like redis-benchmark without
`-r`, every SET goes to one key. `server_share` is the part of the time that the server's own process was
computing: near 1 means that the server was the limit and not this client.
"""

from __future__ import annotations

import multiprocessing
import socket
import tempfile
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import redis

from bench.measurement import Numbers, run
from tradepool.server.embedded import EmbeddedServer

__all__ = ["PIPELINED", "SetClients", "SetRate", "measure"]

PIPELINED = 100
PROCESSES = 2
CONNECTIONS = 4
"""Of each process."""
ANSWER = b"+OK\r\n"
_RECEIVED_BYTES_MAX = 1 << 16


class SetRate(NamedTuple):
    """One round: SETs a second, and the server's processor time over the time it took."""

    per_s: float
    server_share: float


class SetClients:
    """Client processes that SET values of `value_bytes` on the server at `url`, a round at a time.

    A context manager.
    """

    def __init__(self, url: str, value_bytes: int) -> None:
        self._control = redis.Redis.from_url(url, protocol=2)
        self._resources = ExitStack()
        self._resources.callback(self._control.close)
        self._pipes = [self._start(url, value_bytes) for _ in range(PROCESSES)]
        for pipe in self._pipes:
            pipe.recv()

    def round(self, duration_s: float) -> SetRate:
        """SET for about `duration_s`."""
        busy, started = self._server_cpu_s(), time.perf_counter()
        for pipe in self._pipes:
            pipe.send(duration_s)
        count = sum(pipe.recv() for pipe in self._pipes)
        taken = time.perf_counter() - started
        return SetRate(count / taken, (self._server_cpu_s() - busy) / taken)

    def rate(self, duration_s: float) -> float:
        """SETs a second over about `duration_s`."""
        return self.round(duration_s).per_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _start(self, url: str, value_bytes: int) -> Connection:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_serve_rounds, args=(theirs, url, value_bytes), daemon=True
        )
        process.start()
        theirs.close()
        self._resources.callback(process.join)
        self._resources.callback(ours.close)
        return ours

    def _server_cpu_s(self) -> float:
        used = self._control.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _serve_rounds(pipe: Connection, url: str, value_bytes: int) -> None:
    connections = [_connected(url) for _ in range(CONNECTIONS)]
    pipeline = _packed(b"SET", b"key:__rand_int__", b"x" * value_bytes) * PIPELINED
    pipe.send("ready")
    while True:
        try:
            duration_s = pipe.recv()
        except EOFError:
            return
        pipe.send(_set_for(duration_s, connections, pipeline))


def _set_for(duration_s: float, connections: list[socket.socket], pipeline: bytes) -> int:
    count, ends_at = 0, time.perf_counter() + duration_s
    for connection in connections:
        connection.sendall(pipeline)
    while time.perf_counter() < ends_at:
        for connection in connections:
            _read_answers(connection)
            connection.sendall(pipeline)
        count += len(connections) * PIPELINED
    for connection in connections:
        _read_answers(connection)
    return count + len(connections) * PIPELINED


def _read_answers(connection: socket.socket) -> None:
    missing = len(ANSWER) * PIPELINED
    while missing:
        received = connection.recv(_RECEIVED_BYTES_MAX)
        if not received or b"-" in received:
            raise ConnectionError(f"the server answered {received[:80]!r} to a SET")
        missing -= len(received)


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(parts.path)
        return connection
    connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.password:
        connection.sendall(_packed(b"AUTH", parts.password.encode()))
        connection.recv(len(ANSWER))
    return connection


def _packed(*words: bytes) -> bytes:
    lengths = (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n" % len(words) + b"".join(lengths)


def measure(*, quick: bool) -> Numbers:
    """SETs a second of several value sizes, and how busy the server was meanwhile."""
    numbers: Numbers = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        for size in (128, 256, 512):
            with SetClients(server.url, size) as clients:
                clients.round(0.5)
                round_ = clients.round(1.0 if quick else 5.0)
            numbers[f"sets_of_{size}_bytes_per_s"] = round_.per_s
            numbers[f"server_share_{size}_ratio"] = round_.server_share
    return numbers


if __name__ == "__main__":
    run(measure)
