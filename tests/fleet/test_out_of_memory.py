"""A server that is out of memory: nobody ends, nothing is lost, and work goes on by itself."""

from __future__ import annotations

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.trades import journaled_versions, new_trades
from tests.waiting import eventually
from tradepool.client import PoolClient

CONFIRM_S = 60.0


@pytest.mark.slow
def test_the_fleet_waits_for_memory_and_goes_on(own_fleet: Fleet):
    pids = [node.process.pid for node in own_fleet.nodes]
    server = own_fleet.pool.redis
    with PoolClient.connect(own_fleet.settings, batch_max=20, linger_ms=1, resend_s=2) as client:
        trade_ids = client.add_trades(new_trades(200))
        used = int(server.info("memory")["used_memory"])
        server.config_set("maxmemory", used + (256 << 10))
        for _ in range(15):
            trade_ids += client.add_trades(new_trades(200))
        # The broker refuses as well: what a task gives back finds no place, and the consumer waits.
        eventually(lambda: "the broker refuses this worker" in own_fleet.nodes[1].logs(), CONFIRM_S)
        assert client.pending() > 0
        server.config_set("maxmemory", 0)
        assert all(client.confirm(trade_ids, CONFIRM_S).values())
    assert [node.process.pid for node in own_fleet.nodes if node.process.exit_code is None] == pids
    versions = journaled_versions(own_fleet.settings)
    assert {trade_id: versions[trade_id, 1] for trade_id in trade_ids} == dict.fromkeys(trade_ids, 1)
