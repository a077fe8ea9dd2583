"""Connections to the store's server: one server, a Redis Cluster, or whichever server Sentinel names."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from tradepool.settings import Settings
from tradepool.store.address import Address, Topology, broker_address, store_address
from tradepool.store.translation import translated

__all__ = ["Client", "connect", "connect_broker", "node_of", "routed"]

Client = redis.Redis | RedisCluster
"""What reaches the store. Both have the same commands; `routed` says where pipelines differ."""

_RETRIES_MAX = 3
_BACKOFF_BASE_S = 0.02
_BACKOFF_MAX_S = 0.5
_HEALTH_CHECK_S = 30


def connect(settings: Settings) -> Client:
    """A client of the store that `settings` name; it answers in bytes and serves threads.

    A single server, or one behind Sentinel, is connected on first use; a cluster is asked for its
    nodes at once. A lost connection or a timeout is tried again up to three times. That is safe for
    commits: a commit that went through without its answer arriving fails its own version check the
    second time.

    Raises: Misconfigured when the settings contradict themselves; StoreUnavailable when no node of a
    cluster answers. Nothing about an unreachable single server yet.
    """
    address = store_address(settings)
    match address.topology:
        case Topology.SERVER:
            return _single(address, settings)
        case Topology.CLUSTER:
            return _cluster(address, settings)
        case Topology.SENTINEL:
            return _behind_sentinel(address, settings)


def connect_broker(settings: Settings) -> redis.Redis:
    """A client of the server with Celery's queues, like `connect`. Raises: Misconfigured."""
    return _single(broker_address(settings), settings)


def routed(client: Client, key: str | bytes) -> dict[str, Any]:
    """Options for `pipeline.execute_command` of a command that works on `key` and keys of the same shard.

    A pipeline of a cluster would ask a server first where the keys of EVALSHA and XREAD are.
    """
    return {"target_nodes": node_of(client, key)} if isinstance(client, RedisCluster) else {}


def node_of(client: RedisCluster, key: str | bytes) -> ClusterNode:
    """The primary that has `key`, as far as the client knows."""
    cluster: Any = client
    node: ClusterNode = cluster.get_node_from_key(key)
    return node


def _single(address: Address, settings: Settings) -> redis.Redis:
    options = _options(address, settings)
    if address.path:
        where: dict[str, Any] = {"connection_class": UnixDomainSocketConnection, "path": address.path}
        options.pop("socket_connect_timeout")
    else:
        ((host, port),) = address.nodes
        where = {"host": host, "port": port}
    if address.tls is not None:
        where |= {"connection_class": SSLConnection, **address.tls}
    return redis.Redis.from_pool(ConnectionPool(db=address.db, retry=_retry(), **where, **options))


def _cluster(address: Address, settings: Settings) -> RedisCluster:
    options = _options(address, settings) | _tls(address)
    node: Any = ClusterNode
    with translated():
        return RedisCluster(
            startup_nodes=[node(host, port) for host, port in address.nodes],
            retry=_retry(),
            # All shards or none: half a store would answer half of each question.
            require_full_coverage=True,
            **options,
        )


def _behind_sentinel(address: Address, settings: Settings) -> redis.Redis:
    asked = _timeouts(settings) | _tls(address) | {"protocol": 2}
    if settings.redis_sentinel_password is not None:
        asked["password"] = settings.redis_sentinel_password.get_secret_value()
    sentinel: Any = Sentinel
    client: redis.Redis = sentinel(list(address.nodes), sentinel_kwargs=asked).master_for(
        address.service, db=address.db, retry=_retry(), **_options(address, settings), **_tls(address)
    )
    return client


def _options(address: Address, settings: Settings) -> dict[str, Any]:
    return {
        # One shape of answers: RESP3 returns maps and pushes where our parsing expects lists.
        "protocol": 2,
        "health_check_interval": _HEALTH_CHECK_S,
        **_timeouts(settings),
        **address.login,
        **address.options,
    }


def _timeouts(settings: Settings) -> dict[str, Any]:
    return {
        "socket_timeout": settings.socket_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
    }


def _tls(address: Address) -> dict[str, Any]:
    return {} if address.tls is None else {"ssl": True, **address.tls}


def _retry() -> Retry:
    return Retry(ExponentialWithJitterBackoff(base=_BACKOFF_BASE_S, cap=_BACKOFF_MAX_S), _RETRIES_MAX)
