"""The roles' logins on a cluster, each node with the same ACL file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.loose_trades import buy
from tests.roles import made_users, with_an_admin
from tests.servers import ClusterServers, cluster_servers
from tradepool import TradePool
from tradepool.errors import Misconfigured
from tradepool.fleet.state import Watcher
from tradepool.journaling.service import JournalService
from tradepool.settings import Settings
from tradepool.store.connection import connect

USERS = ("ann", "bob", "cora", "dan", "eve", "finn")


def settings_of(cluster: ClusterServers, folder: Path, role: str) -> Settings:
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    return Settings(
        redis_url=f"redis+cluster://{nodes}",
        redis_username=role,
        redis_password_file=folder / "users" / f"{role}_password",
        broker_url=cluster.nodes[0].url,
        data_dir=folder / "pool",
        shard_count=8,
    )


def denied(cluster: ClusterServers) -> list[tuple[str, str, str]]:
    """Who was denied what on any node since the last call."""
    found = []
    for node in cluster.nodes:
        with node.client() as admin:
            found += [(line["username"], line["reason"], line["object"]) for line in admin.acl_log()]
            admin.acl_log_reset()
    return found


@pytest.mark.slow
def test_every_role_does_its_work_on_a_cluster_and_no_more(server_binary: Path, tmp_path: Path):
    users = with_an_admin(made_users(tmp_path / "users") / "store.acl")
    with cluster_servers(tmp_path / "cluster", f"aclfile {users}") as cluster:
        bot, worker, operator, metrics = (
            settings_of(cluster, tmp_path, role) for role in ("bot", "worker", "operator", "metrics")
        )
        denied(cluster)
        with closing(JournalService(worker, connect(worker))) as journal:
            journal.recover()
            journal.start()
            with TradePool.connect(worker) as pool:
                added = pool.add_trades(buy(user_id=user, trade_id=f"t-{user}") for user in USERS)
                assert all(receipt.durable for receipt in added)
                pool.set_prices({"BTC/USDT": "120"})
                pool.mark_to_market()
            with TradePool.connect(operator) as pool:
                assert pool.check_all_trades(deep=True).ok
            with closing(Watcher(metrics)) as watcher:
                assert watcher.look().store is not None
            with TradePool.connect(bot) as pool:
                assert len(list(pool.get_all_trades())) == len(USERS)
                assert pool.get_marks("ann")
                assert denied(cluster) == []
                with pytest.raises(Misconfigured, match=r"docs/operations\.md"):
                    pool.add_trade(buy(user_id="ann"))
        assert {user for user, _, _ in denied(cluster)} == {"bot"}
        for node in cluster.nodes:
            with (
                redis.Redis(
                    port=node.port, username="bot", password=bot.redis_password_file.read_text()
                ) as one,
                pytest.raises(redis.ResponseError, match=r"(?i)permission"),
            ):
                one.execute_command("HSET", "tp:{00}:r:0", "t-1", "x")
