"""The chaos runner: what a seed fixes, that a run passes, and that what it looks for is found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from msgspec import Raw

from bench.soak import LEAK_KIB_PER_S, slope_of
from tests.faults.simulator.journal_lines import JournalFiles, Line
from tests.fleet.chaos.checks import check_lines
from tests.fleet.chaos.notes import client_notes, read_notes
from tests.fleet.chaos.outcome import Outcome, Struck, Wait, self_ended, table
from tests.fleet.chaos.plan import FULL_TRADES, FaultKind, make_plan, wanted_counts
from tests.fleet.chaos.workload import WINDOW_TRADES, windows_of
from tests.tidy.source_tree import ROOT
from tests.waiting import eventually
from tradepool.fleet.programs import environment
from tradepool.server.embedded import free_port
from tradepool.settings import Settings

TIMEOUT_S = 400
SOAK_TIMEOUT_S = 240
TRADES = 2_000


def run_chaos(room: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fleet.chaos", "--trades", str(TRADES), *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(room)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_seed_makes_the_same_plan_and_the_same_commands_each_time():
    counts = wanted_counts("all", FULL_TRADES)
    assert make_plan(7, counts) == make_plan(7, counts)
    assert make_plan(7, counts) != make_plan(8, counts)
    assert list(windows_of(7, 1, 200)) == list(windows_of(7, 1, 200))
    assert list(windows_of(7, 1, 200)) != list(windows_of(8, 1, 200))


def test_a_full_run_meets_every_kind_of_fault_and_ten_graceful_restarts():
    counts = wanted_counts("all", FULL_TRADES)
    assert counts.keys() == set(FaultKind)
    assert counts[FaultKind.RESTART] == 10
    assert wanted_counts("worker:3,beat", 1000) == {FaultKind.WORKER: 3, FaultKind.BEAT: 1}


def test_the_commands_of_each_record_make_its_versions_one_after_the_other():
    """Else a client that was killed could not tell from a version what it has handed in."""
    made: dict[str, list[int]] = defaultdict(list)
    for window in windows_of(1, 0, 10 * WINDOW_TRADES):
        for step in window.steps:
            made[step.record_id].append(step.version)
            if step.beside:
                made[f"{step.user_id}\x1fdefault"].append(step.beside)
    assert all(versions == list(range(1, len(versions) + 1)) for versions in made.values())
    assert {len(versions) for versions in made.values()} > {1, 3, 4, 5}


def test_a_faults_recovery_lasts_until_all_that_was_under_way_is_confirmed():
    waits = [
        Wait(began_at=began, confirmed_at=confirmed, commands=1) for began, confirmed in [(0, 9), (4, 7)]
    ]
    outcome = Outcome(
        seed=1,
        trades=2,
        commands=2,
        violations=[],
        struck=[Struck(kind=FaultKind.SERVER, at=5, for_s=1), Struck(kind=FaultKind.SERVER, at=8, for_s=1)],
        seconds=9,
        outcomes={"duplicate": 3},
        resends=4,
        longest_call_s=0.1,
        windows=waits,
    )
    assert outcome.recovery_s(FaultKind.SERVER) == [1, 4]
    assert "| server | 2 | 2.5 s | 4.0 s |" in table(outcome)
    assert "duplicates absorbed: 3" in table(outcome)


@pytest.mark.parametrize(
    ("name", "code", "ends", "violations"),
    [
        ("trades-1", -9, 2, 0),
        ("trades-1", 75, 1, 1),
        ("beat-2", 0, 2, 0),
        # Celery said once that a child was gone before it had looked.
        ("trades-2", 1, 1, 0),
        ("trades-2", 1, 2, 1),
    ],
)
def test_who_ends_though_nobody_killed_him_is_told(name: str, code: int, ends: int, violations: int):
    said = f"[warning  ] program ended   exit_code={code} log=/x/{name}.log program={name} restart_in_s=0.5\n"
    stage = SimpleNamespace(
        log=lambda _: said * ends, worker_log=lambda _: "Could not start worker processes"
    )
    assert len(list(self_ended(stage))) == violations


def test_a_leak_is_told_from_noise():
    noise = [(float(second), 1e8 + (second * 7919) % 50_000) for second in range(400)]
    leak = [(at, size + at * 5_000) for at, size in noise]
    assert slope_of(noise).low < 0 < slope_of(noise).high
    assert slope_of(leak).low > 200
    assert slope_of(leak).is_leak
    assert not slope_of(noise).is_leak


def test_a_step_is_no_leak():
    step = [(float(second), 1e8 + (second * 7919) % 5_000 + 2e6 * (second > 200)) for second in range(400)]
    assert slope_of(step).low > 64
    assert not slope_of(step).is_leak


@pytest.mark.slow
def test_a_bot_that_is_started_while_the_server_is_away_trades_all_the_same(tmp_path: Path):
    settings = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0", data_dir=tmp_path)
    command = [sys.executable, "-m", "tests.fleet.chaos.client_process", "1", "0", "200", str(tmp_path)]
    with (tmp_path / "bot.log").open("wb") as log:
        bot = subprocess.Popen(command, stdout=log, stderr=log, env=environment(settings), cwd=ROOT)
    try:
        eventually(lambda: "handed" in {note.what for note in read_notes(client_notes(tmp_path, 0))}, 60)
        assert bot.poll() is None
    finally:
        bot.kill()
        bot.wait()


@pytest.mark.slow
@pytest.mark.timeout(SOAK_TIMEOUT_S)
def test_a_leak_that_is_planted_in_a_worker_is_found_there(server_binary: Path):
    """What fills up once is taken for a leak in so short a run; what is planted is far more than that."""
    options = ["--seconds", "90", "--threads", "8", "--rate", "30", "--leak", "tokens-1"]
    done = subprocess.run(
        [sys.executable, "bench/soak.py", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    row = re.compile(r"^\| (\S+) \d+ \|[^|]*\|[^|]*\| \+?(-?\d+) \| (.+) \|$", flags=re.MULTILINE)
    grows = {name: int(usual) for name, usual, _ in row.findall(done.stdout)}
    assert ("tokens-1", "leaks") in {(name, verdict) for name, _, verdict in row.findall(done.stdout)}
    assert done.returncode == 1
    planted = LEAK_KIB_PER_S * 60
    assert planted / 2 < grows.pop("tokens-1") < planted * 2
    assert max(grows.values()) < planted / 2


def test_the_judge_takes_no_repair_for_what_a_client_has_sent():
    """An audit that puts a lost record back into the journal must not hide that it was lost."""
    body = b'{"trade_id":"t"}'
    sent = Line(
        0,
        0,
        "1-0",
        0,
        "t",
        "t",
        "c0ffee",
        "",
        1,
        blake2b(body, digest_size=8).hexdigest(),
        "",
        "p",
        Raw(body),
    )
    for line, problems in ((sent, 0), (msgspec.structs.replace(sent, e="repair:c0ffee"), 1)):
        journal = JournalFiles()
        journal.history["t"] = [line]
        assert len(list(check_lines(journal))) == problems


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_fleet_at_work_survives_every_fault_at_once(server_binary: Path, room: Path):
    done = run_chaos(room, "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "violations: 0" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_what_is_lost_is_found(server_binary: Path, room: Path):
    """A fleet that acknowledges before it applies."""
    done = run_chaos(room, "--seed", "3", "--faults", "worker:6,prefork-parent:4", "--break", "ack")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VIOLATED" in done.stdout
