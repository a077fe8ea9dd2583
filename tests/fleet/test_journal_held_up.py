"""The journal's worker is stopped, or its disk is full: nothing is acknowledged, and it goes on by itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.conftest import Fleet, running_fleet
from tests.fleet.trades import journaled_versions, new_trades
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.files.journal import JOURNAL_NAME

CONFIRM_S = 60.0
JOURNAL_WAIT_S = 1
DISK_BYTES = 24 << 20

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def assert_journaled_once(fleet: Fleet, trade_ids: list[str]) -> None:
    versions = journaled_versions(fleet.settings)
    assert {trade_id: versions[trade_id, 1] for trade_id in trade_ids} == dict.fromkeys(trade_ids, 1)
    assert fleet.pool.check_all_trades(deep=True).ok


def test_while_the_journals_worker_is_stopped_nothing_is_acknowledged_and_nothing_is_lost(tmp_path: Path):
    """Longer than a task waits for the journal, and than messages stay with whoever has taken them."""
    with running_fleet(tmp_path / "pool", journal_wait_s=JOURNAL_WAIT_S) as fleet:
        fleet.start_workers()
        files, worker = fleet.nodes
        with PoolClient.connect(fleet.settings, batch_max=20, resend_s=2) as client:
            before = client.add_trades(new_trades(100))
            assert all(client.confirm(before, CONFIRM_S).values())
            files.kill(signal.SIGSTOP)
            stopped = client.add_trades(new_trades(100))
            eventually(lambda: worker.logs().count("JournalUnavailable") > 2 * len(stopped) / 20)
            assert not any(client.confirm(stopped, 0).values())
            files.kill(signal.SIGCONT)
            assert all(client.confirm(stopped, CONFIRM_S).values())
        assert [node.process.exit_code for node in fleet.nodes] == [None, None]
        eventually(lambda: fleet.pool.redis.hlen("unacked") == 0)
        assert_journaled_once(fleet, before + stopped)


def test_a_full_disk_holds_everything_up_until_there_is_room(small_disk: Path):
    """Also the worker that is started while it is full; the server's own file lies there as well."""
    with running_fleet(small_disk / "pool", journal_wait_s=JOURNAL_WAIT_S) as fleet:
        fleet.start_workers()
        files = fleet.nodes[0]
        with PoolClient.connect(fleet.settings, batch_max=20, resend_s=2) as client:
            trade_ids = client.add_trades(new_trades(100))
            assert all(client.confirm(trade_ids, CONFIRM_S).values())
            ballast = small_disk / "ballast"
            fill(ballast)
            size = (fleet.settings.data_dir / JOURNAL_NAME).stat().st_size
            full = client.add_trades(new_trades(400))
            eventually(lambda: client.lag().problem or client.lag().oldest_s > 2 * JOURNAL_WAIT_S)
            assert not any(client.confirm(full, 0).values())
            assert (fleet.settings.data_dir / JOURNAL_NAME).stat().st_size < size + 4096
            files.kill(signal.SIGKILL)
            files.process.restart()
            eventually(lambda: client.lag().oldest_s > 6 * JOURNAL_WAIT_S)
            ballast.unlink()
            assert all(client.confirm(full, CONFIRM_S).values())
        assert_journaled_once(fleet, trade_ids + full)


def fill(ballast: Path) -> None:
    """Use up all the room there is."""
    room = os.statvfs(ballast.parent)
    with ballast.open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, room.f_bavail * room.f_frsize)
