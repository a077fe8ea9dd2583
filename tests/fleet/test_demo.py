"""The demo as a newcomer runs it, and that its proof can fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.loose_trades import buy
from tests.waiting import eventually
from tradepool import TradePool
from tradepool.demo import run
from tradepool.demo.journal_count import JournalCount
from tradepool.demo.proof import prove
from tradepool.errors import Rejected

LEGACY = Path(__file__).parents[2] / "../shared/data/legacy"


@pytest.fixture
def demo(tmp_path):
    """Start `tradepool demo` with its files in a folder of the test's own."""
    started = []

    def start(*arguments):
        command = [
            sys.executable,
            "-m",
            "tradepool.cli",
            "demo",
            "--embedded",
            str(tmp_path / "demo"),
            *arguments,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        for child in (
            [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        ):
            child.kill()
        process.kill()
        process.wait()
        process.stdout.close()


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


def test_the_demo_trades_and_proves_itself_whole(demo, tmp_path):
    process = demo("--seconds", "14")

    output = process.communicate(timeout=110)[0]

    assert process.returncode == 0, output
    assert "every accepted trade is in all three places" in output
    trades = json.loads((tmp_path / "demo" / "trades.json").read_bytes())
    assert len(trades) > 100
    assert (tmp_path / "demo" / "trade_pool.log").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.skipif(not LEGACY.exists(), reason="the shared data is not here")
def test_the_demo_takes_a_real_export(demo, tmp_path):
    process = demo("--import", str(LEGACY), "--json")

    output = process.communicate(timeout=110)[0]

    assert process.returncode == 0, output
    told, _ = json.JSONDecoder().raw_decode(output, output.index("{\n"))
    assert (told["ok"], told["missing_in_journal"], told["findings"]) == (True, [], {})
    assert any("line 885" in row for row in told["refused"])
    assert len(json.loads((tmp_path / "demo" / "trades.json").read_bytes())) == 600


@pytest.mark.slow
def test_a_second_demo_in_the_same_folder_counts_its_own_changes_only(demo, tmp_path):
    counted = []
    for _ in range(2):
        process = demo("--seconds", "12", "--json")
        output = process.communicate(timeout=110)[0]
        assert process.returncode == 0, output
        told, _end = json.JSONDecoder().raw_decode(output, output.index("{\n"))
        counted.append(told["journaled"])

    assert sum(counted) <= JournalCount(tmp_path / "demo" / "trade_pool.log").look()


def test_for_a_file_that_is_not_there_the_demo_starts_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with pytest.raises(Rejected, match="no-file"):
        run(import_file=tmp_path / "no-file")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("started", [2, 6, 10])
def test_ctrl_c_stops_every_process_of_the_demo_whenever_it_comes(demo, started):
    process = demo()
    eventually(lambda: len(descendants(process.pid)) >= started)
    programs = descendants(process.pid)

    process.send_signal(signal.SIGINT)

    process.wait(timeout=60)
    assert process.returncode == 130
    eventually(lambda: not any(program.is_running() for program in programs))


def test_the_proof_fails_for_a_trade_that_is_nowhere(tmp_path):
    with TradePool.embedded(tmp_path) as pool:
        whole = pool.add_trade(buy()).trade_id
        pool.write_snapshot()
        late = pool.add_trade(buy()).trade_id

        assert prove(pool, [whole]).ok
        assert prove(pool, [whole, late]).missing_in_snapshot == {late}
        ghost = prove(pool, [whole, "ghost"])
        assert not ghost.ok
        assert ghost.missing_in_redis == ghost.missing_in_journal == ghost.missing_in_snapshot == {"ghost"}
