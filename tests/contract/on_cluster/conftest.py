"""The fixtures of the contracts, with a cluster of three nodes behind them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

from tests.servers import ClusterServers, cluster_servers
from tradepool import TradePool
from tradepool.journaling.service import JournalService
from tradepool.settings import Settings
from tradepool.store.connection import connect
from tradepool.store.fence import open_fence

HERE = Path(__file__).parent
SHARD_COUNT = 4
NOT_HERE = (
    ("test_recovery", "fill", "only a single server is filled in bulk"),
    ("test_recovery", "adds_something_twice", "a replay says it in other words than a filling in bulk"),
    ("test_pool", "told_at_once_why_the_journal", "only an embedded pool has its journal in this process"),
)
"""Module, part of a test's name, why it does not run on a cluster."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The contracts run for every change on one server; here they run with the slow tests."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            for module, name, reason in NOT_HERE:
                if item.path.stem.startswith(module) and name in item.name:
                    item.add_marker(pytest.mark.skip(reason))


@pytest.fixture(scope="session")
def cluster(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """One cluster for all tests here."""
    with cluster_servers(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def settings(cluster: ClusterServers, tmp_path: Path) -> Settings:
    """Settings of a pool of four shards on the cluster."""
    return Settings(redis_url=cluster.url, data_dir=tmp_path / "pool", shard_count=SHARD_COUNT)


@pytest.fixture
def redis_client(cluster: ClusterServers, settings: Settings) -> Iterator[RedisCluster]:
    """An empty cluster with an open fence."""
    cluster.empty()
    client = connect(settings)
    assert isinstance(client, RedisCluster)
    open_fence(client)
    yield client
    client.close()


@pytest.fixture
def cluster_pool(redis_client: RedisCluster, settings: Settings) -> Iterator[TradePool]:
    """A pool on the empty cluster, its journal kept by a thread."""
    with closing(JournalService(settings, redis_client)) as journal:
        redis_client.script_flush()
        journal.recover()
        journal.start()
        with TradePool.connect(settings) as pool:
            yield pool
