"""Real servers of several kinds: one that can be killed and set back, a cluster, a pair under Sentinel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import redis

from tests.waiting import eventually
from tradepool import TradePool
from tradepool.errors import Unavailable
from tradepool.server.binary import find_server
from tradepool.server.embedded import EmbeddedServer, free_port
from tradepool.store import fence

__all__ = [
    "PASSWORD",
    "SENTINEL_PASSWORD",
    "ClusterServers",
    "Server",
    "cluster_node",
    "cluster_servers",
    "detach",
    "follow",
    "kill_until_revived",
    "meet",
    "promote",
    "replica_pair",
    "sentinel_of",
]

PASSWORD = "open-sesame"
"""Of all servers made here, so that they can replicate and one URL reaches each."""
SENTINEL_PASSWORD = "who-goes-there"
_NODES = 3
_SLOTS = 16384


class Server:
    """One server on a loopback port that keeps address and folder over `kill` and `start`."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._overrides = [f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0", *overrides]
        self._running: EmbeddedServer | None = None
        (folder / "server").mkdir(parents=True)
        (folder / "server" / "server.password").write_text(PASSWORD, encoding="ascii")
        self.start()

    @property
    def url(self) -> str:
        """The server itself, as a single one."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it on what its folder holds."""
        self._running = EmbeddedServer(self.folder, port=self.port, overrides=self._overrides)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGKILL)
        self.stop()

    def pause(self) -> None:
        """Let it hang, its connections open, until `resume`."""
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it if it runs."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def client(self) -> redis.Redis:
        """A client of this very server; the caller closes it."""
        return redis.Redis.from_url(self.url, protocol=2)

    def aof_bytes(self) -> int:
        """How long the append-only file is: where `set_back` can cut it later."""
        return self._aof().stat().st_size

    def set_back(self, aof_bytes: int) -> None:
        """Lose what a crash may lose: the end of the append-only file; the server is not running."""
        assert self._running is None
        os.truncate(self._aof(), aof_bytes)

    def _aof(self) -> Path:
        return max((self.folder / "server" / "appendonlydir").glob("*.incr.aof"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ClusterServers:
    """Three primaries that share the slots, joined to one cluster."""

    def __init__(self, nodes: Sequence[Server]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """For `Settings.redis_url`."""
        return f"redis+cluster://:{PASSWORD}@" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def node_of(self, key: str) -> Server:
        """The primary that has `key`."""
        with self.nodes[0].client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
        return self.nodes[slot * _NODES // _SLOTS]

    def move(self, key: str, to: Server) -> None:
        """Give the slot of `key`, and what is in it, to another node."""
        with self.node_of(key).client() as source, to.client() as target:
            slot = int(source.execute_command("CLUSTER", "KEYSLOT", key))
            source_id, target_id = (bytes(one.execute_command("CLUSTER", "MYID")) for one in (source, target))
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
            keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10_000)
            migrate = ("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
            source.execute_command(*migrate)
            for one in (target, source):
                one.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def wait_whole(self) -> None:
        """Return once all nodes agree that the cluster is up."""
        for node in self.nodes:
            with node.client() as client:
                eventually(lambda: _is_whole(client))

    def empty(self) -> None:
        """Take all keys and scripts out."""
        for node in self.nodes:
            with node.client() as client:
                client.flushall()
                client.script_flush()


def cluster_node(folder: Path, *overrides: str) -> Server:
    """A server that can join a cluster."""
    return Server(
        folder,
        "cluster-enabled yes",
        f"cluster-port {free_port()}",
        "cluster-node-timeout 1000",
        # A replica stands by until a test promotes it.
        "cluster-replica-no-failover yes",
        *overrides,
    )


@contextmanager
def cluster_servers(folder: Path, *overrides: str) -> Iterator[ClusterServers]:
    """A running cluster whose node i has the i-th third of the slots."""
    with ExitStack() as running:
        nodes = [running.enter_context(cluster_node(folder / f"node-{i}", *overrides)) for i in range(_NODES)]
        bounds = [-(-_SLOTS * i // _NODES) for i in range(_NODES + 1)]
        for i, node in enumerate(nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
        for node in nodes[1:]:
            meet(nodes[0], node)
        cluster = ClusterServers(nodes)
        cluster.wait_whole()
        yield cluster


def meet(member: Server, newcomer: Server) -> None:
    """Make `newcomer` known to the cluster of `member`."""
    with member.client() as client, newcomer.client() as other:
        bus = other.config_get("cluster-port")["cluster-port"]
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", newcomer.port, bus)


@contextmanager
def replica_pair(folder: Path) -> Iterator[tuple[Server, Server]]:
    """A primary and a replica that is in step with it."""
    with Server(folder / "primary") as primary, Server(folder / "replica") as replica:
        follow(replica, primary.port)
        yield primary, replica


def follow(replica: Server, port: int) -> None:
    """Make a server the replica of whatever answers on `port`, and wait until it is in step."""
    with replica.client() as client:
        client.replicaof("127.0.0.1", port)
        eventually(lambda: client.info("replication").get("master_link_status") == "up")


def promote(replica: Server) -> None:
    """Make a replica a primary, with what it has."""
    with replica.client() as client:
        client.replicaof("NO", "ONE")


def _is_whole(client: redis.Redis) -> bool:
    try:
        info = bytes(client.execute_command("CLUSTER", "INFO")).split()
    except redis.ConnectionError:
        return False
    return {b"cluster_state:ok", b"cluster_size:3"} <= set(info)


def detach(replica: Server) -> None:
    """Let a replica lose its primary and not find it again: whatever comes now, it will lack."""
    with replica.client() as client:
        client.config_set("masterauth", "not-the-password")
        client.execute_command("CLIENT", "KILL", "TYPE", "MASTER")
        eventually(lambda: client.info("replication")["master_link_status"] == "down")


@contextmanager
def sentinel_of(primary: Server, service: str, folder: Path) -> Iterator[int]:
    """A Sentinel that watches `primary` and promotes a replica of it within seconds; its port."""
    folder.mkdir()
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"""
        bind 127.0.0.1
        port {port}
        dir {folder}
        requirepass {SENTINEL_PASSWORD}
        sentinel monitor {service} 127.0.0.1 {primary.port} 1
        sentinel auth-pass {service} {PASSWORD}
        sentinel down-after-milliseconds {service} 500
        sentinel failover-timeout {service} 3000
        """,
        encoding="utf-8",
    )
    command = [find_server(), folder / "sentinel.conf", "--sentinel"]
    with (folder / "sentinel.log").open("w") as log, subprocess.Popen(command, stdout=log) as process:
        try:
            with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
                eventually(lambda: _knows_a_replica(client, service))
            yield port
        finally:
            process.kill()


def _knows_a_replica(sentinel: redis.Redis, service: str) -> bool:
    try:
        return any(replica["master-link-status"] == "ok" for replica in sentinel.sentinel_slaves(service))
    except redis.ConnectionError:
        return False


def kill_until_revived(pool: TradePool) -> None:
    """The server of an embedded pool dies at once; the pool starts it again and recovers it."""
    before = pool.store.generation()

    def has_recovered() -> bool:
        try:
            return pool.store.generation() != before and fence.is_open(pool.redis)
        except Unavailable:
            return False

    os.kill(int(pool.redis.info("server")["process_id"]), signal.SIGKILL)
    eventually(has_recovered)
