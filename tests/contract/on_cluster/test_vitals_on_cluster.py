"""A look at a pool whose store is a cluster: fence and memory are those of all its nodes together."""

from __future__ import annotations

from redis.cluster import RedisCluster

from tests.servers import ClusterServers
from tradepool.clock import now_us
from tradepool.fleet.health import read_health
from tradepool.fleet.state import Watcher
from tradepool.settings import Settings
from tradepool.store.keys import Keys


def test_a_look_takes_all_nodes_together(
    cluster: ClusterServers, settings: Settings, redis_client: RedisCluster
):
    outboxes = [Keys(settings.shard_count).outbox(shard) for shard in range(settings.shard_count)]
    for outbox in outboxes:
        redis_client.xadd(outbox, {"ta0": "x"}, id=f"{now_us() // 1000 - 60_000}-0")
    used = []
    for node in cluster.nodes:
        with node.client() as client:
            used.append(int(client.info("memory")["used_memory"]))
    with Watcher(settings, has_fleet=False) as watcher:
        health = read_health(watcher)
        assert (health.is_fenced, health.journal_lag) == (False, len(outboxes))
        assert watcher.look().store.memory.used > max(used)
        with cluster.nodes[1].client() as client:
            client.script_flush()
        assert read_health(watcher).is_fenced
