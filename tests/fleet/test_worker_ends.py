"""Workers with threads that end again and again, or ought to: nothing that they had is lost, and it stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.pool_task import WORKERS_LOST_MAX
from tasks.reliability import EXIT_QUIET
from tests.fleet.conftest import Fleet, running_fleet
from tests.fleet.trades import journaled_versions, new_trade, new_trades
from tests.waiting import eventually
from tradepool.client import PoolClient

CONFIRM_S = 60.0
DEATHS_S = 150.0
"""For each of the deaths a worker starts, and the message becomes visible again."""
VISIBILITY_TIMEOUT_S = 5
"""Deaths are remembered for four of them; a worker starts in less, also on a busy machine."""
DEADLY = "tasks.trades.deadly"
"""As in tests/fleet/deadly.py, whose import would add it to the app of this process."""

pytestmark = pytest.mark.slow


def test_a_worker_that_falls_silent_ends_and_leaves_its_messages_to_the_next(bare_fleet: Fleet):
    bare_fleet.start("files")
    silent = bare_fleet.start("trades", app="tests.fleet.quiet")
    silent.wait_ready()
    with PoolClient.connect(bare_fleet.settings, resend_s=1000) as client:
        trade_id = client.add_trade(new_trade())
        eventually(lambda: silent.process.exit_code is not None, CONFIRM_S)
        assert silent.process.exit_code == EXIT_QUIET
        assert "worker takes no messages" in silent.logs()
        another = bare_fleet.start("trades")
        assert client.confirm([trade_id], CONFIRM_S) == {trade_id: True}
    another.teardown()


@pytest.mark.timeout(300)
def test_a_message_over_which_whole_workers_die_is_parked_and_the_others_are_done(tmp_path: Path):
    """Threads die with their process, and nobody is left to count: the next worker does."""
    with running_fleet(tmp_path / "pool", visibility_timeout_s=VISIBILITY_TIMEOUT_S) as fleet:
        fleet.start("files")
        worker = fleet.start("trades", app="tests.fleet.deadly")
        with PoolClient.connect(fleet.settings, batch_max=5, resend_s=1000) as client:
            trade_ids = client.add_trades(new_trades(20))
            lost = fleet.foreign.send_task(DEADLY, queue="trades")
            trade_ids += client.add_trades(new_trades(20))
            deaths = 0

            def is_parked() -> bool:
                nonlocal deaths
                if worker.process.exit_code is not None:
                    deaths += 1
                    worker.process.restart()
                return bool(fleet.letters(lost.id))

            eventually(is_parked, DEATHS_S)
            (letter,) = fleet.letters(lost.id)
            assert "worker processes died over it" in letter.reason["problem"]
            assert deaths > WORKERS_LOST_MAX
            assert all(client.confirm(trade_ids, CONFIRM_S).values())
            eventually(lambda: fleet.pool.redis.hlen("unacked") == 0)
        assert worker.process.exit_code is None
        versions = journaled_versions(fleet.settings)
        assert {trade_id: versions[trade_id, 1] for trade_id in trade_ids} == dict.fromkeys(trade_ids, 1)
