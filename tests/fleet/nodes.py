"""Worker processes as nodes of pytest-celery: no container engine, the same handles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from pytest_celery import CeleryTestContainer, CeleryTestNode

from tests.waiting import eventually
from tradepool.fleet.programs import environment
from tradepool.settings import Settings

__all__ = ["WorkerNode", "log_lines", "start_worker"]

END_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 60.0
"""A worker imports for a second or two, and for far longer beside others that do."""


class LocalProcess:
    """One process in its own group, with the attributes that pytest-celery asks of a container."""

    attrs: ClassVar[dict[str, Any]] = {
        "Config": {"Env": []},
        "HostConfig": {"PortBindings": {}},
        "NetworkSettings": {"Networks": {"loopback": {"IPAddress": "127.0.0.1"}}, "Ports": {}},
    }

    def __init__(self, name: str, arguments: list[str], variables: dict[str, str], log: Path) -> None:
        self.name = name
        self.id = name
        self._arguments = arguments
        self._variables = variables
        self._log = log
        self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def status(self) -> str:
        return "running" if self._process.poll() is None else "exited"

    def reload(self) -> None:
        self._process.poll()

    def logs(self) -> bytes:
        return self._log.read_bytes()

    def kill(self, signal_name: str | int | None = None) -> None:
        number = (
            signal.Signals[signal_name] if isinstance(signal_name, str) else signal.Signals(signal_name or 9)
        )
        if number is signal.SIGKILL:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait(END_TIMEOUT_S)

    def restart(self, timeout: float = END_TIMEOUT_S) -> None:
        if self.status == "running":
            self._process.terminate()
            self._process.wait(timeout)
        self._process = self._start()

    def stop(self) -> None:
        if self.status == "running":
            self.kill(signal.SIGKILL)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as out:
            return subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._variables,
                start_new_session=True,
            )


class WorkerContainer(CeleryTestContainer):
    """A worker that is ready once it says so."""

    ready_prompt = " ready."


class WorkerNode(CeleryTestNode):
    """A worker process: `kill`, `restart`, `logs`, `wait_for_log` and the like."""

    @property
    def process(self) -> LocalProcess:
        return self.container._container

    def wait_ready(self) -> None:
        eventually(lambda: self.process.exit_code is not None or " ready." in self.logs(), READY_TIMEOUT_S)
        assert self.process.exit_code is None, self.logs()

    def teardown(self) -> None:
        self.process.stop()


def start_worker(
    settings: Settings, queues: str, *options: str, threads: int = 2, app: str = "tasks"
) -> WorkerNode:
    """Start a worker of the fleet, or of another `app`; the caller tears it down."""
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{queues.replace(',', '-')}-{len(list(folder.iterdir()))}"
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queues, "-n", f"{name}@%h"]
    options = ("--loglevel", "INFO", "-P", "threads", "-c", str(threads), *options)
    process = LocalProcess(name, [*command, *options], environment(settings), folder / f"{name}.log")
    return WorkerNode(WorkerContainer(process))


def log_lines(node: WorkerNode) -> list[dict[str, Any]]:
    """What the log of a worker has of events."""
    return [json.loads(line) for line in node.logs().splitlines() if line.startswith("{")]
