"""Connections to the store's server: one server, a Redis Cluster, or whichever server Sentinel names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from tradepool.settings import Settings
from tradepool.store.address import Address, Topology, broker_address, store_address
from tradepool.store.translation import translated

__all__ = [
    "Client",
    "connect",
    "connect_broker",
    "connected_once",
    "node_of",
    "repeat_count",
    "routed",
    "unbroken",
]

Client = redis.Redis | RedisCluster
"""What reaches the store. Both have the same commands; `routed` says where pipelines differ."""

_RETRIES_MAX = 3
_BACKOFF_BASE_S = 0.02
_BACKOFF_MAX_S = 0.5
_HEALTH_CHECK_S = 30

_repeats: ContextVar[int] = ContextVar("_repeats", default=0)


def connect(settings: Settings) -> Client:
    """A client of the store that `settings` name; it answers in bytes and serves threads.

    A single server, or one behind Sentinel, is connected on first use; a cluster is asked for its
    nodes at once. A lost connection or a timeout is tried again up to three times. That is safe for
    commits: a commit that went through without its answer arriving fails its own version check the
    second time (`sending` finds out).

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


def connect_broker(settings: Settings, *, retries_max: int = _RETRIES_MAX) -> redis.Redis:
    """A client of the server with Celery's queues, like `connect`. Raises: Misconfigured."""
    return _single(broker_address(settings), settings, retries_max)


def repeat_count() -> int:
    """How often what this thread sent has failed, and was or may have been sent once more.

    A cluster's pipelines are not counted.
    """
    return _repeats.get()


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


@contextmanager
def unbroken(client: Client) -> Iterator[Client]:
    """A client of the server processes that `client` reaches now, and of no others.

    It has one connection to the server, or to each primary of a cluster, and none is ever made again: a
    connection does not outlive the process at its other end. What is done through it was therefore done
    by the same processes from the first command to the last; otherwise it ends with StoreUnavailable.

    Nothing is sent twice. For one thread. Raises: StoreUnavailable.
    """
    connector = _Connector()
    with translated():
        made = (
            _like_cluster(client, connector) if isinstance(client, RedisCluster) else _like(client, connector)
        )
    with closing(made) as once:
        with translated():
            # To every primary of a cluster.
            once.script_exists("")
        connector.seal()
        yield once


def connected_once(client: redis.Redis, name: str) -> Any:
    """One connection like `client`'s, which is never made again and which the server lists as `name`.

    Raises: StoreUnavailable.
    """
    connector = _Connector()
    pool = client.connection_pool
    connection = pool.connection_class(**_options_like(client, connector) | {"client_name": name})
    with translated():
        connection.connect()
    connector.seal()
    return connection


class _Connector:
    """Makes connections until it is sealed."""

    def __init__(self) -> None:
        self._is_sealed = False

    def seal(self) -> None:
        """Make no more connections."""
        self._is_sealed = True

    def check(self, _connection: object) -> None:
        """Whether another connection may be made. Raises: redis.ConnectionError."""
        if self._is_sealed:
            raise redis.ConnectionError("the connection was lost; what needs one that lasts begins again")

    def connect(self, connection: Any) -> None:
        """What redis-py does with a fresh connection. Raises: as `check`."""
        self.check(connection)
        connection.on_connect()


def _like(client: redis.Redis, connector: _Connector) -> redis.Redis:
    kind = client.connection_pool.connection_class
    return redis.Redis.from_pool(ConnectionPool(connection_class=kind, **_options_like(client, connector)))


def _options_like(client: redis.Redis, connector: _Connector) -> dict[str, Any]:
    options = client.connection_pool.connection_kwargs
    return {**options, "retry": Retry(NoBackoff(), 0), "redis_connect_func": connector.connect}


def _like_cluster(client: RedisCluster, connector: _Connector) -> RedisCluster:
    known: Any = client
    node: Any = ClusterNode
    return RedisCluster(
        startup_nodes=[node(one.host, one.port) for one in known.get_nodes()],
        retry=Retry(NoBackoff(), 0),
        require_full_coverage=True,
        # The cluster's client makes the connection before it asks.
        **{**known.get_connection_kwargs(), "redis_connect_func": connector.check},
    )


def _single(address: Address, settings: Settings, retries_max: int = _RETRIES_MAX) -> redis.Redis:
    options = _options(address, settings)
    if address.path:
        where: dict[str, Any] = {"connection_class": UnixDomainSocketConnection, "path": address.path}
        options.pop("socket_connect_timeout")
    else:
        ((host, port),) = address.nodes
        where = {"host": host, "port": port}
    if address.tls is not None:
        where |= {"connection_class": SSLConnection, **address.tls}
    return redis.Redis.from_pool(ConnectionPool(db=address.db, retry=_retry(retries_max), **where, **options))


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
    asked = _timeouts(settings) | _tls(address) | {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
    if settings.redis_sentinel_password is not None:
        asked["password"] = settings.redis_sentinel_password.get_secret_value()
    sentinels: Any = _Sentinels(list(address.nodes), sentinel_kwargs=asked)
    client: redis.Redis = sentinels.master_for(
        address.service, db=address.db, retry=_retry(), **_options(address, settings), **_tls(address)
    )
    return client


class _Sentinels(Sentinel):
    """Sentinels that tell in a few words why they know no primary; redis-py prints all its clients."""

    def __init__(self, nodes: list[tuple[str, int]], **options: Any) -> None:
        super().__init__(nodes, **options)  # type: ignore[no-untyped-call]
        self._names = ", ".join(f"{host}:{port}" for host, port in nodes)

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the service's primary. Raises: MasterNotFoundError, AuthenticationError."""
        try:
            found: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as problem:
            words = str(problem)
        else:
            return found
        if "Authentication" in words:
            raise redis.AuthenticationError(
                f"the Sentinels {self._names} want TRADEPOOL_REDIS_SENTINEL_PASSWORD, or another one there"
            )
        # One "<client> - <error>" of each that failed.
        silent = words.count("> - ")
        why = "answers" if silent == len(self.sentinels) else f"knows a live primary of {service_name!r}"
        raise MasterNotFoundError(
            f"none of the Sentinels {self._names} {why}; start them, or correct the service "
            f"({service_name!r}) in TRADEPOOL_REDIS_URL"
        )


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


class _CountingRetry(Retry):
    """Tries again, and counts it (`repeat_count`)."""

    def call_with_retry(self, do: Any, fail: Any, *given: Any, **options: Any) -> Any:
        def count_and_fail(*failure: Any) -> Any:
            _repeats.set(_repeats.get() + 1)
            return fail(*failure)

        return super().call_with_retry(do, count_and_fail, *given, **options)


def _retry(retries_max: int = _RETRIES_MAX) -> Retry:
    return _CountingRetry(ExponentialWithJitterBackoff(base=_BACKOFF_BASE_S, cap=_BACKOFF_MAX_S), retries_max)
