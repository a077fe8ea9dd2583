"""The units of systemd, run as it would: their own environment, a read-only system, no privileges."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.fleet.trades import new_trades
from tests.roles import RoleServers, role_servers
from tests.tidy.test_units import COMMON, PYTHON, lines_of, unit_file
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.server.embedded import free_port

STATE = "/var/lib/tradepool"
LOGIN = "ann:open-sesame"
PROGRAMS = ("files", "trades-1", "tokens-1", "gpu", "beat", "metrics", "flower")
"""The first one is the journal's: it ends last."""
READY_S = 120.0
# A mount of its own for what it may write; the rest cannot be written, nor any privilege had.
SANDBOX = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / && cd "$1" && shift
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def can_be_sandboxed() -> bool:
    tools = all(map(shutil.which, ("unshare", "setpriv", "mount")))
    return tools and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


class Unit:
    """One unit, started from what its files say; its paths and addresses are the test's."""

    def __init__(self, name: str, folder: Path, given: dict[str, str], port: int) -> None:
        self.file, self.instance = unit_file(name)
        self.state = folder / "state"
        self.log = folder / f"{name}.log"
        self._credentials = folder / "credentials" / name
        self._port = port
        self._given = given
        (credential,) = lines_of(self.file, "LoadCredential")
        target, _, source = credential.partition(":")
        self._credentials.mkdir(parents=True)
        shutil.copy(folder / "users" / Path(source).name, self._credentials / target)
        self.start()

    def start(self) -> None:
        (command,) = lines_of(self.file, "ExecStart", self.instance)
        python, *arguments = shlex.split(self._here(command))
        assert python == PYTHON
        sandbox = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SANDBOX, "sh"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*sandbox, str(self.state), sys.executable, *arguments],
                env=self._environment(),
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        """As systemd does it; the exit code. Killed after its grace period, it has -9."""
        (signal_name,) = lines_of(COMMON, "KillSignal")
        (grace_s,) = lines_of(COMMON, "TimeoutStopSec")
        self.process.send_signal(signal.Signals[signal_name])
        try:
            return self.process.wait(float(grace_s))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def status(self) -> dict[str, str]:
        """What the kernel says of the program."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        told = [*lines_of(COMMON, "Environment"), *lines_of(self.file, "Environment", self.instance)]
        variables = dict(one.split("=", 1) for line in told for one in shlex.split(self._here(line)))
        return {"PATH": os.environ["PATH"], **variables, **self._given}

    def _here(self, text: str) -> str:
        here = text.replace(STATE, str(self.state)).replace("%d", str(self._credentials))
        return here.replace("--port=5555", f"--port={self._port}")


@pytest.fixture
def servers(server_binary: Path, tmp_path: Path) -> Iterator[RoleServers]:
    if not can_be_sandboxed():
        pytest.skip("this user cannot make a mount namespace")
    with role_servers(tmp_path, two=True) as running:
        yield running


@pytest.fixture
def units(servers: RoleServers, tmp_path: Path) -> Iterator[dict[str, Unit]]:
    """The fleet, each program with its environment files."""
    (tmp_path / "state").mkdir()
    port = free_port()
    given = {
        "TRADEPOOL_REDIS_URL": f"redis://127.0.0.1:{servers.store.port}/0",
        "TRADEPOOL_BROKER_URL": f"redis://127.0.0.1:{servers.broker.port}/0",
        "TRADEPOOL_SHARD_COUNT": "4",
        "TRADEPOOL_METRICS_PORT": str(free_port()),
        "FLOWER_BASIC_AUTH": LOGIN,
    }
    with ExitStack() as stack:
        running = {}
        for name in PROGRAMS:
            running[name] = Unit(name, tmp_path, given, port)
            stack.callback(running[name].process.wait)
            stack.callback(lambda unit=running[name]: unit.process.kill())
        yield running


def page(port: str | int, path: str, login: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=READY_S) as answer:
            return answer.read().decode()
    except (URLError, ConnectionError):
        return ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_units_run_a_fleet_without_privileges_and_stop_within_their_grace(
    servers: RoleServers, units: dict[str, Unit]
):
    with PoolClient.connect(servers.settings("bot")) as bot:
        assert all(bot.confirm(bot.add_trades(new_trades(20)), READY_S).values()), units["files"].text()
        bot.update_available_tokens("ann", {"BTC": "1"})
        assert bot.flush(READY_S)
        flower, metrics = units["flower"], units["metrics"]
        eventually(lambda: "gpu@" in page(flower._port, "/api/workers?refresh=1", LOGIN), READY_S)
        eventually(
            lambda: "tradepool_up 1" in page(metrics._given["TRADEPOOL_METRICS_PORT"], "/metrics"), READY_S
        )
        for unit in units.values():
            status = unit.status()
            assert (status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("1", 0)
        # A worker is asked to stop in the middle of a task that waits for a journal.
        units["files"].process.send_signal(signal.SIGSTOP)
        waiting = bot.add_trades(new_trades(3))
        with servers.broker.client() as admin:
            eventually(lambda: admin.hlen("unacked"), READY_S)
        assert units["trades-1"].stop() == 0, units["trades-1"].text()
        units["files"].process.send_signal(signal.SIGCONT)
        units["trades-1"].start()
        assert all(bot.confirm(waiting, READY_S).values())
    for name in reversed(PROGRAMS):
        assert units[name].stop() == 0, (name, units[name].text())
        assert '"level": "critical"' not in units[name].text(), name
    assert (units["flower"].state / "trade_pool.log").exists()
    assert list(units["flower"].state.glob("flower*"))
    assert servers.denied() == []
