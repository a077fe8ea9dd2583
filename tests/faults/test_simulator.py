"""A few seeds of the fault simulator; and that it notices builds that are broken on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.simulator.breaks import BREAKS
from tests.faults.simulator.campaign import replay_command
from tests.faults.simulator.journal_lines import read_journal
from tests.faults.simulator.plan import RUN_MS, FaultKind, make_plan
from tests.faults.simulator.store_contents import actual_contents, expected_contents
from tests.loose_trades import buy
from tests.tidy.source_tree import ROOT
from tradepool import TradePool

TIMEOUT_S = 600
"""A run that hangs ends by itself, and a loaded machine is nobody's mistake."""
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it needs pidfds and signals on a parent's death"),
    pytest.mark.timeout(TIMEOUT_S + 60),
]

JOBS = "3"
"""Runs at a time; each has seven processes, which mostly wait."""
CAUGHT_WITHIN = {"version": "1-4", "ack": "1-12", "fence": "1-12", "fsync": "1-24"}
"""Seeds of which one at least is told from a healthy pool, whatever the machine is doing besides."""


def simulate(room: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.simulator", "--jobs", JOBS, *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(room)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_seed_makes_the_same_plan_each_time():
    assert make_plan(17) == make_plan(17)
    assert make_plan(17) != make_plan(18)


def test_every_kind_of_fault_strikes_within_two_hundred_seeds():
    faults = [fault for seed in range(200) for fault in make_plan(seed).faults]
    assert {fault.kind for fault in faults} == set(FaultKind)
    assert all(0 <= fault.at_ms < RUN_MS + 300 for fault in faults)


def test_the_judge_knows_how_many_recent_trades_a_shard_keeps(server_binary: Path, tmp_path: Path):
    with TradePool.embedded(tmp_path, shard_count=1, recent_max=3) as pool:
        pool.add_trades(buy() for _ in range(7))
        keys, journal = pool.store.keys, read_journal(tmp_path)
        expected = expected_contents(journal, keys, recent_max=3)
        assert len(expected[keys.recent(0)]) == 3
        assert actual_contents(pool.redis) == expected


@pytest.mark.parametrize(
    ("seeds", "count"), [("0-2", 3), pytest.param("3-42", 40, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_nothing_acknowledged_is_lost_and_nothing_is_doubled(
    server_binary: Path, room: Path, seeds: str, count: int
):
    done = simulate(room, "--seeds", seeds)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} runs, 0 with violations" in done.stdout


@pytest.mark.parametrize(
    "broken", [pytest.param(name, marks=pytest.mark.slow if name == "fsync" else ()) for name in BREAKS]
)
def test_a_broken_build_is_caught(server_binary: Path, room: Path, broken: str):
    done = simulate(room, "--seeds", CAUGHT_WITHIN[broken], "--break", broken, "--first")
    assert done.returncode == 1, done.stdout + done.stderr
    seed = done.stdout.partition(": VIOLATED")[0].rpartition("seed ")[2]
    assert replay_command(int(seed), broken) in done.stdout
    assert list(room.glob(f"simulator-{seed}-*/pool/trade_pool.log")), "its folder is kept"
