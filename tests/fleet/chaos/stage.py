"""The processes of one chaos run: a server, and through a proxy each the fleet and the clients."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil

from tests.fleet.chaos.fleet_process import PREFORK
from tests.fleet.chaos.workload import client_trades
from tests.tcp_proxy import TcpProxy
from tests.tidy.source_tree import ROOT
from tests.waiting import eventually
from tradepool.errors import ResourceUnavailable
from tradepool.fleet.programs import environment
from tradepool.server.embedded import EmbeddedServer, free_port
from tradepool.settings import Settings, load_settings

__all__ = ["CLIENTS", "Stage"]

CLIENTS = 4
_HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to whoever connects: one of these could take a dead server's port."""
_END_TIMEOUT_S = 100.0
_SETTINGS = {
    "shard_count": 8,
    # Short, so that a run sees what production sees in a quarter of an hour.
    "visibility_timeout_s": 10,
    "journal_wait_s": 8,
    "socket_timeout_s": 3,
    "connect_timeout_s": 2,
    "cpu_threads": 15,
    "segment_bytes": 8 << 20,
    "snapshot_every_s": 15,
    "audit_every_s": 15,
    "archive_every_s": 20,
    "expire_every_s": 5,
    "mark_every_s": 1,
    "book_check_every_s": 20,
    "pnl_backend": "numpy",
}


class Stage:
    """Everything that runs in `folder`; ends all of it when it is left, whatever has happened."""

    def __init__(self, seed: int, trades: int, folder: Path) -> None:
        self.seed = seed
        self.trades = trades
        self.folder = folder
        self.data_dir = folder / "pool"
        self.notes_dir = folder / "notes"
        self.notes_dir.mkdir(parents=True)
        self.clients: dict[int, subprocess.Popen[bytes]] = {}
        self._resources = ExitStack()
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as begun:
            self.server = begun.enter_context(EmbeddedServer(self.data_dir, port=_free_port(self.seed)))
            address = (_HOST, urlsplit(self.server.url).port or 0)
            self.client_wire = begun.enter_context(TcpProxy(address))
            self.worker_wire = begun.enter_context(TcpProxy(address))
            self.settings = self._settings_through(address[1])
            begun.callback(self._end_processes)
            self._resources = begun.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    # What runs

    def start_fleet(self) -> None:
        """Start the supervisor, which starts all workers."""
        settings = self._settings_through(self.worker_wire.port)
        self._up = self._start("fleet", "tests.fleet.chaos.fleet_process", settings=settings)

    def start_client(self, number: int) -> None:
        """Start a bot, perhaps not for the first time."""
        wanted = client_trades(self.trades, CLIENTS, number)
        arguments = [str(self.seed), str(number), str(wanted), str(self.notes_dir)]
        self.clients[number] = self._start(
            f"client-{number}",
            "tests.fleet.chaos.client_process",
            *arguments,
            settings=self._settings_through(self.client_wire.port),
        )

    @property
    def up_pid(self) -> int | None:
        """The supervisor's process while it runs."""
        return self._up.pid if self._up is not None and self._up.poll() is None else None

    def programs(self) -> dict[str, psutil.Process]:
        """The supervisor's programs that run now, by name."""
        if self.up_pid is None:
            return {}
        try:
            children = psutil.Process(self.up_pid).children()
            return {name: child for child in children if (name := _name_of(child)) is not None}
        except psutil.NoSuchProcess:
            return {}

    def prefork_children(self) -> list[psutil.Process]:
        """The processes that run tasks for the prefork worker."""
        parent = self.programs().get(PREFORK)
        try:
            return [] if parent is None else parent.children()
        except psutil.NoSuchProcess:
            return []

    # What ends

    def kill_up(self) -> None:
        """Kill the supervisor alone."""
        assert self._up is not None
        self._up.kill()
        self._up.wait()

    def stop_fleet(self) -> int:
        """Ask the supervisor to end; its exit code."""
        assert self._up is not None
        self._up.terminate()
        return self._up.wait(_END_TIMEOUT_S)

    def end_server(self, how: signal.Signals) -> None:
        """End broker and store, and wait until they are gone."""
        os.kill(self.server.pid, how)
        eventually(lambda: not self.server.is_running())

    def left_behind(self) -> list[psutil.Process]:
        """Processes of this run that are not the runner, its server or something it knows."""
        mine = {os.getpid(), self.server.pid, *(client.pid for client in self.clients.values())}
        return [process for process in self._all() if process.pid not in mine]

    def log(self, name: str) -> str:
        """What a process of that name has said, over all its lives."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def worker_log(self, name: str) -> str:
        """The same of a program of the fleet."""
        path = self.data_dir / "logs" / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def _end_processes(self) -> None:
        for process in [self._up, *self.clients.values()]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        for process in self.left_behind():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _all(self) -> Iterator[psutil.Process]:
        """By their environment, which nothing of the run ever leaves."""
        for process in psutil.process_iter():
            try:
                found = process.environ().get("CHAOS_NOTES")
                if found == str(self.notes_dir) and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def _start(self, name: str, module: str, *arguments: str, settings: Settings) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(settings) | {"CHAOS_NOTES": str(self.notes_dir)},
                cwd=ROOT,
                start_new_session=True,
            )

    def _settings_through(self, port: int) -> Settings:
        url = self.server.url.rpartition(":")[0] + f":{port}/0"
        return load_settings(redis_url=url, broker_url=None, data_dir=self.data_dir, **_SETTINGS)


def _name_of(process: psutil.Process) -> str | None:
    """A worker's by its node name; the beats are told apart by nothing."""
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return None
    if "-n" in words:
        return words[words.index("-n") + 1].partition("@")[0]
    return f"beat {process.pid}" if "beat" in words else None


def _free_port(seed: int) -> int:
    choose = random.Random(f"{seed} {os.getpid()}")
    while True:
        try:
            return free_port(choose.choice(_PORTS))
        except ResourceUnavailable:
            continue
