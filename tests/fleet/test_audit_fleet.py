"""Audits by the audit workers of a fleet together: killed workers delay them and falsify nothing."""

from __future__ import annotations

import json
import signal

import msgspec
import pytest

from tests.fleet.conftest import Fleet, running_fleet
from tests.fleet.trades import new_trades
from tests.varied_trades import varied_trades
from tests.waiting import eventually
from tradepool.audit.parts.run_board import Ended, RunningAudit
from tradepool.cli import main
from tradepool.fleet.programs import environment
from tradepool.store.keys import Keys

SEGMENT_BYTES = 1 << 16
TRADES = 3_000
REPORT_S = 180.0


@pytest.fixture(scope="module")
def own(tmp_path_factory, server_binary):
    """A fleet with many small segments, and a record that Redis has lost."""
    with running_fleet(tmp_path_factory.mktemp("pool"), segment_bytes=SEGMENT_BYTES) as fleet:
        fleet.start("files").wait_ready()
        fleet.pool.add_trades(list(varied_trades(TRADES, 40)))
        lost = fleet.pool.add_trades(new_trades(1, users=1))[0].trade_id
        keys = fleet.pool.store.keys
        fleet.pool.redis.hdel(keys.records(keys.shard_of_user("user-0"), keys.bucket_of(lost)), lost)
        yield fleet


def ask(fleet: Fleet, run_id: str, level: str = "deep") -> None:
    fleet.call("audit.check_all_trades", level=level, run_id=run_id)


def report(fleet: Fleet, run_id: str) -> dict[str, object]:
    eventually(lambda: isinstance(fleet.pool.get_audit_progress(run_id), Ended), REPORT_S)
    ended = fleet.pool.get_audit_progress(run_id)
    assert isinstance(ended, Ended)
    assert ended.report is not None, ended
    return {name: ended.report[name] for name in ("level", "checked", "findings", "undecided")}


def here(fleet: Fleet, level: str = "deep") -> dict[str, object]:
    """What an audit in this process reports."""
    found = json.loads(msgspec.json.encode(fleet.pool.check_all_trades(level=level)))
    return {name: found[name] for name in ("level", "checked", "findings", "undecided")}


def is_under_way(fleet: Fleet, run_id: str, done: int = 3) -> bool:
    found = fleet.pool.get_audit_progress(run_id)
    return isinstance(found, RunningAudit) and done <= found.done < found.parts


@pytest.mark.slow
def test_the_audit_workers_come_to_the_report_of_one_process(own):
    worker = own.start("audit", threads=1)
    worker.wait_ready()
    for level in ("deep", "digest"):
        ask(own, f"by-the-fleet-{level}", level)
        assert report(own, f"by-the-fleet-{level}") == here(own, level)
    assert {found["rule"] for found in report(own, "by-the-fleet-deep")["findings"]} == {"missing_in_redis"}
    last = own.pool.get_audits(limit=5)
    assert "by-the-fleet-deep" in {kept["run_id"] for kept in last}
    worker.teardown()


@pytest.mark.slow
def test_a_worker_that_is_killed_in_a_part_delays_the_report_and_changes_nothing(own):
    expected = here(own)
    first = own.start("audit", threads=2)
    first.wait_ready()
    ask(own, "killed")
    eventually(lambda: is_under_way(own, "killed"))
    first.process.kill(signal.SIGKILL)
    before = own.pool.get_audit_progress("killed")
    assert isinstance(before, RunningAudit)
    second = own.start("audit", threads=1)
    second.wait_ready()

    assert report(own, "killed") == expected
    second.teardown()


@pytest.mark.slow
def test_two_audits_at_once_by_two_workers_are_both_right(own):
    expected = here(own)
    workers = [own.start("audit", threads=1) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    for run_id in ("left", "right"):
        ask(own, run_id)

    assert report(own, "left") == report(own, "right") == expected
    eventually(lambda: own.pool.redis.hlen(Keys.audit_runs) == 0)
    for worker in workers:
        worker.teardown()


def test_the_command_has_the_fleet_do_it_and_prints_nothing_but_the_report(own, monkeypatch, capsys):
    variables = environment(own.settings)
    for name in filter(lambda name: name.startswith("TRADEPOOL_"), variables):
        monkeypatch.setenv(name, variables[name])
    worker = own.start("audit", threads=1)
    worker.wait_ready()

    assert main(["check-all-trades", "--deep", "--fleet", "--json"]) == 1

    told = json.loads(capsys.readouterr().out)
    assert (told["level"], set(told["counts"])) == ("deep", {"missing_in_redis"})
    assert main(["check-all-trades", "--fleet", "--embedded", str(own.settings.data_dir)]) > 1
    assert "--embedded" in capsys.readouterr().err
    worker.teardown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_audit_survives_a_kill_of_each_worker_in_turn(own):
    expected = here(own)
    ask(own, "kills")
    for done in range(2, 30, 3):
        worker = own.start("audit", threads=1)
        worker.wait_ready()
        eventually(
            lambda done=done: (
                is_under_way(own, "kills", done) or isinstance(own.pool.get_audit_progress("kills"), Ended)
            ),
            REPORT_S,
        )
        worker.process.kill(signal.SIGKILL)
    last = own.start("audit", threads=1)
    assert report(own, "kills") == expected
    last.teardown()
