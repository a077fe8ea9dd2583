"""The processes of one run: a server, a proxy, the journal's owner, the writers; and how each comes back."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.simulator.children import Child
from tests.faults.simulator.disk import Disk
from tests.faults.simulator.journal_process import keep_journal
from tests.faults.simulator.plan import WRITERS, Plan
from tests.faults.simulator.proxy_process import ProxyProcess
from tests.faults.simulator.server_process import ServerProcess
from tests.faults.simulator.writers import write_batches
from tradepool.journaling import writer
from tradepool.settings import Settings

__all__ = ["JOURNAL", "SERVER", "SHARD_COUNT", "Stage", "writer_name"]

JOURNAL = "journal"
SERVER = "server"
SHARD_COUNT = 4

_SEGMENT_BYTES = 1 << 16
_QUICK = {"journal_wait_s": 0.15, "socket_timeout_s": 0.2, "connect_timeout_s": 0.2, "retention_s": 0}
"""Limits of fractions of a second, so that a run meets them often."""


def writer_name(number: int) -> str:
    """How a plan calls that writer."""
    return f"writer-{number}"


class Stage:
    """Everything that runs for one seed, in `folder`. `broken` names what is broken on purpose."""

    def __init__(self, plan: Plan, folder: Path, *, broken: str = "") -> None:
        self.plan = plan
        self.folder = folder
        self.data_dir = folder / "pool"
        self.data_dir.mkdir()
        self.server = ServerProcess(folder / SERVER)
        self.choose = random.Random(plan.seed)
        self.disk = Disk(self.data_dir, folder / "synced")
        self.disk.lies = broken == "fsync"
        self.children: dict[str, Child] = {}
        self.started_s = 0.0
        self._broken = broken
        self._orders = -1
        self._proxy: ProxyProcess | None = None

    def begin(self) -> None:
        """Start everything; the clock of the plan runs from here."""
        # A waiting journal must not sleep through the rest of a run.
        writer._PAUSE_MAX_S = 0.2
        self.server.start()
        self.server.wait_ready()
        if self.plan.through_proxy:
            self._proxy = ProxyProcess(self.server.socket, self.folder / "proxy.log")
        self.started_s = time.monotonic()
        self.start_journal()
        for number in range(WRITERS):
            self.start_writer(number)

    def settings(self, name: str) -> Settings:
        """What the process `name` is given."""
        quick: dict[str, Any] = dict(_QUICK)
        if "segment_bytes" in Settings.model_fields:
            quick["segment_bytes"] = _SEGMENT_BYTES
        url = self.server.url
        if self._proxy is not None and name in self.plan.through_proxy:
            url = f"redis://127.0.0.1:{self._proxy.port}/0"
        return Settings(redis_url=url, data_dir=self.data_dir, shard_count=SHARD_COUNT, **quick)

    def notes(self, number: int) -> Path:
        """The answers that a writer got."""
        return self.folder / f"{writer_name(number)}.notes"

    def start_writer(self, number: int) -> None:
        """Start a writer, which goes on where its notes end."""
        main = partial(
            write_batches,
            number,
            self.plan.batches[number],
            self.settings(writer_name(number)),
            self.notes(number),
            started_s=self.started_s,
            broken=self._broken,
        )
        self._fork(writer_name(number), main)

    def start_journal(self) -> None:
        """Start the journal's owner, which recovers before anything else."""
        orders, self._orders = os.pipe()
        self._fork(JOURNAL, partial(keep_journal, self.settings(JOURNAL), self.disk, orders))
        os.close(orders)

    def start(self, name: str) -> None:
        """Start the writer or the journal of that name again."""
        if name == JOURNAL:
            os.close(self._orders)
            self.start_journal()
        else:
            self.start_writer(int(name.rpartition("-")[2]))

    def order(self, what: str) -> None:
        """Tell the journal's owner something, if it is there to hear it."""
        if self.children[JOURNAL].poll() is None:
            os.write(self._orders, f"{what}\n".encode())

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process that may have ended."""
        if name != SERVER:
            self.children[name].send(number)
        elif self.server.pid is not None:
            os.kill(self.server.pid, number)

    def wire(self, name: str, argument: float | None = None) -> None:
        """Tell the proxy, where there is one."""
        if self._proxy is not None:
            self._proxy.order(name, argument)

    def limit_journal_files(self, room: int | None) -> None:
        """Let the journal's files grow by no more than `room` bytes (None: without limit), for real."""
        child = self.children[JOURNAL]
        if child.poll() is None:
            log = self.data_dir / "trade_pool.log"
            size = log.stat().st_size if log.exists() else 0
            soft = resource.RLIM_INFINITY if room is None else size + room
            resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def close(self) -> None:
        """Kill whatever still runs."""
        for child in self.children.values():
            child.kill()
        if self._proxy is not None:
            self._proxy.kill()
        self.server.kill()

    def _fork(self, name: str, main: partial[int]) -> None:
        self.children[name] = Child(name, main, self.folder / f"{name}.log")
