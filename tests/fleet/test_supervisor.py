"""The fleet on one machine: everything runs, what dies comes back, nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.fleet.trades import new_trades
from tests.waiting import eventually
from tradepool.cli.running import stopped_by_signals
from tradepool.client import PoolClient
from tradepool.errors import Misconfigured, PoolLocked
from tradepool.fleet import supervisor as supervisor_module
from tradepool.fleet.programs import Program, environment
from tradepool.fleet.supervisor import Supervisor
from tradepool.pool import TradePool
from tradepool.server.embedded import EmbeddedServer, free_port
from tradepool.settings import Settings

READY_S = 40.0

SLEEPER = "import signal; print('up', flush=True); signal.pause()"
NOISY = """
import itertools, time
for number in itertools.count():
    print(f"{number:099}", flush=True)
    time.sleep(0.0005)
"""
TWICE_TALKATIVE = """
import sys
from pathlib import Path
lives = Path(sys.argv[1], "lives").open("a+")
print("+", end="", file=lives, flush=True)
match lives.tell():
    case 1:
        print("starting\\nthe disk is full\\n")
    case 2:
        print('{"problem": "the disk is full", "event": "no journal", "level": "critical"}')
raise SystemExit(7)
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
OWNER = """
import sys
from pathlib import Path
from tradepool.fleet.programs import Program
from tradepool.fleet.supervisor import Supervisor
from tradepool.settings import Settings
sleeper = Program(name="sleeper", arguments=("-c", sys.argv[2]))
supervisor = Supervisor(Settings(data_dir=Path(sys.argv[1])), [sleeper])
supervisor.start()
print(supervisor.status()[0].pid, flush=True)
sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    data_dir = tmp_path_factory.mktemp("pool")
    with EmbeddedServer(data_dir, port=0) as server:
        yield Settings(
            redis_url=server.url,
            data_dir=data_dir,
            shard_count=4,
            cpu_threads=2,
            visibility_timeout_s=3,
            mark_every_s=0.5,
            snapshot_every_s=1,
            audit_every_s=1,
            flower_port=free_port(),
            metrics_port=free_port(),
            flower_basic_auth=SecretStr("operator:secret"),
        )


def flower(settings: Settings, path: str, auth: bytes | None = None) -> object:
    request = urllib.request.Request(f"http://127.0.0.1:{settings.flower_port}{path}")
    if auth is not None:
        request.add_header("Authorization", f"Basic {b64encode(auth).decode()}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def flower_refuses(settings: Settings) -> bool:
    try:
        flower(settings, "/api/workers")
    except urllib.error.HTTPError as refused:
        return refused.code == 401
    except urllib.error.URLError:
        return False
    return False


def test_the_whole_fleet_works_and_a_killed_worker_comes_back(settings: Settings):
    with Supervisor(settings) as supervisor, PoolClient.connect(settings, resend_s=3) as client:
        assert all(client.confirm(client.add_trades(new_trades(300)), READY_S).values())
        victim = next(state for state in supervisor.status() if state.name == "trades-1")
        os.kill(victim.pid, signal.SIGKILL)
        assert all(client.confirm(client.add_trades(new_trades(300)), READY_S).values())
        trades = next(state for state in supervisor.status() if state.name == "trades-1")
        assert (trades.pid != victim.pid, trades.starts) == (True, 2)
        assert_the_clock_ticks(settings)
        assert_flower_asks_for_a_password(settings)
        pids = [state.pid for state in supervisor.status()]
        assert all(pids)
    assert not any(is_alive(pid) for pid in pids)


def assert_the_clock_ticks(settings: Settings) -> None:
    snapshot = settings.data_dir / "snapshot.json"
    with TradePool.connect(settings) as pool:
        pool.set_prices({"BTC/USDT": "120"})
        eventually(snapshot.exists, READY_S)
        eventually(lambda: pool.redis.llen("gpu") == 0, READY_S)


def assert_flower_asks_for_a_password(settings: Settings) -> None:
    eventually(lambda: flower_refuses(settings), READY_S)
    eventually(
        lambda: "trades-1" in str(flower(settings, "/api/workers?refresh=1", b"operator:secret")), READY_S
    )


def test_a_program_that_dies_is_started_again_and_a_stubborn_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tradepool.fleet.supervisor.STOP_TIMEOUT_S", 0.5)
    programs = [
        Program(name="brief", arguments=("-c", "print('done')")),
        Program(name="stubborn", arguments=("-c", STUBBORN), ends_last=True),
    ]
    with Supervisor(Settings(data_dir=tmp_path), programs) as supervisor:
        eventually(lambda: supervisor.status()[0].starts >= 2)
        eventually(lambda: "up" in (tmp_path / "logs" / "stubborn.log").read_text(encoding="utf-8"))
        pid = supervisor.status()[1].pid
    assert not is_alive(pid)
    assert [state.pid for state in supervisor.status()] == [None, None]


PARENT = """
import os, signal
if child := os.fork():
    print(child, flush=True)
signal.pause()
"""
LAST_WORDS = """
import signal, sys, time
def end(*_):
    print(time.monotonic(), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
signal.pause()
"""


def said(data_dir: Path, program: str) -> list[str]:
    log = data_dir / "logs" / f"{program}.log"
    return log.read_text(encoding="utf-8").split() if log.is_file() else []


def test_what_a_killed_program_leaves_behind_ends_with_it(tmp_path: Path):
    """As a prefork worker leaves its children."""
    parent = Program(name="parent", arguments=("-c", PARENT))
    with Supervisor(Settings(data_dir=tmp_path), [parent]) as supervisor:
        eventually(lambda: said(tmp_path, "parent"))
        os.kill(supervisor.status()[0].pid, signal.SIGKILL)
        eventually(lambda: supervisor.status()[0].starts == 2)
        assert not is_alive(int(said(tmp_path, "parent")[0]))


def test_a_program_that_cannot_be_started_is_tried_again_and_harms_no_other(tmp_path: Path):
    in_its_way = tmp_path / "logs" / "blocked.log"
    in_its_way.mkdir(parents=True)
    programs = [Program(name=name, arguments=("-c", SLEEPER)) for name in ("blocked", "sleeper")]
    with Supervisor(Settings(data_dir=tmp_path), programs) as supervisor:
        eventually(lambda: "up" in said(tmp_path, "sleeper") and supervisor.status()[0].starts >= 2)
        assert supervisor.status()[0].pid is None
        in_its_way.rmdir()
        eventually(lambda: "up" in said(tmp_path, "blocked"))


def test_the_pause_before_a_restart_doubles_in_a_crash_loop_and_its_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tradepool.fleet.supervisor.RESTART_PAUSE_MIN_S", 0.01)
    log = tmp_path / "logs" / "brief.log"
    log.parent.mkdir()
    log.write_text("said by an earlier fleet\n")
    brief = Program(name="brief", arguments=("-c", TWICE_TALKATIVE, str(tmp_path)))
    with capture_logs() as logs, Supervisor(Settings(data_dir=tmp_path), [brief]) as supervisor:
        eventually(lambda: supervisor.status()[0].starts > 3)
    assert [entry["restart_in_s"] for entry in logs][:3] == [0.01, 0.02, 0.04]
    assert {entry["exit_code"] for entry in logs} == {7}
    assert {entry["log"] for entry in logs} == {str(log)}
    assert [entry.get("said") for entry in logs][:3] == [
        "the disk is full",
        "no journal: the disk is full",
        None,
    ]


def test_a_program_that_ran_for_a_while_is_in_no_crash_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tradepool.fleet.supervisor.RESTART_PAUSE_MIN_S", 0.01)
    monkeypatch.setattr("tradepool.fleet.supervisor.STEADY_AFTER_S", 0.0)
    brief = Program(name="brief", arguments=("-c", ""))
    with capture_logs() as logs, Supervisor(Settings(data_dir=tmp_path), [brief]) as supervisor:
        eventually(lambda: supervisor.status()[0].starts > 3)
    assert {entry["restart_in_s"] for entry in logs} == {0.01}


def test_the_log_of_a_program_that_never_ends_is_bounded_under_its_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor_module, "LOG_BYTES_MAX", 1 << 14)
    monkeypatch.setattr(supervisor_module, "CHECK_EVERY_S", 0.01)
    noisy = Program(name="noisy", arguments=("-c", NOISY))
    log, aside = tmp_path / "logs" / "noisy.log", tmp_path / "logs" / "noisy.log.1"
    with Supervisor(Settings(data_dir=tmp_path), [noisy]) as supervisor:
        eventually(lambda: aside.exists() and 0 < log.stat().st_size < aside.stat().st_size)
        first = aside.read_text().split()[-1]
        eventually(lambda: int(aside.read_text().split()[-1]) > int(first))
        assert supervisor.status()[0].starts == 1
    # In order and without a gap of holes: the program goes on at the beginning of the emptied file.
    numbers = [int(number) for number in log.read_text().split()]
    assert numbers == sorted(numbers)


def test_the_journals_worker_is_asked_to_end_after_all_others_have(tmp_path: Path):
    programs = [
        Program(name="journal", arguments=("-c", LAST_WORDS), ends_last=True),
        Program(name="worker", arguments=("-c", LAST_WORDS)),
    ]
    with Supervisor(Settings(data_dir=tmp_path), programs):
        eventually(lambda: said(tmp_path, "journal") and said(tmp_path, "worker"))
    assert float(said(tmp_path, "worker")[1]) < float(said(tmp_path, "journal")[1])


def test_a_supervisor_in_a_hurry_kills_what_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tradepool.fleet.supervisor.STOP_TIMEOUT_S", 10_000.0)
    stubborn = Program(name="stubborn", arguments=("-c", STUBBORN))
    with Supervisor(Settings(data_dir=tmp_path), [stubborn]) as supervisor:
        eventually(lambda: said(tmp_path, "stubborn"))
        pid = supervisor.status()[0].pid
        supervisor.hurry()
    assert not is_alive(pid)


def test_a_second_signal_is_told_from_the_first():
    again: list[int] = []
    with ExitStack() as stack:
        stopping = stopped_by_signals(stack, again=lambda: again.append(1))
        signal.raise_signal(signal.SIGTERM)
        assert (stopping.is_set(), again) == (True, [])
        signal.raise_signal(signal.SIGINT)
    assert again == [1]


def test_the_fleet_ends_with_a_supervisor_that_is_killed(tmp_path: Path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), SLEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(Settings(data_dir=tmp_path)),
        text=True,
    )
    with owner:
        pid = int(owner.stdout.readline())
        eventually(lambda: "up" in (tmp_path / "logs" / "sleeper.log").read_text(encoding="utf-8"))
        owner.kill()
    eventually(lambda: not is_alive(pid))


def test_a_folder_has_one_fleet(tmp_path: Path):
    sleeper = [Program(name="sleeper", arguments=("-c", SLEEPER))]
    with Supervisor(Settings(data_dir=tmp_path), sleeper):
        second = Supervisor(Settings(data_dir=tmp_path), sleeper)
        with pytest.raises(PoolLocked, match=f"held by process {os.getpid()}"):
            second.start()
        assert second.status()[0].pid is None
    with Supervisor(Settings(data_dir=tmp_path), sleeper) as again:
        eventually(lambda: again.status()[0].pid is not None)


def test_a_flower_without_a_login_is_not_started(tmp_path: Path):
    with pytest.raises(Misconfigured, match="TRADEPOOL_FLOWER_BASIC_AUTH"):
        Supervisor(Settings(data_dir=tmp_path, flower_basic_auth=None))
