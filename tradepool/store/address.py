"""Where a server is and how to log in there: a URL, and the settings beside it, as one thing.

Credentials given as settings take the place of those in the URL. Nothing here connects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from ssl import CERT_REQUIRED
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import SecretStr
from redis import connection as redis_connection

from tradepool.errors import Misconfigured
from tradepool.settings import Settings, secret_of
from tradepool.store.translation import STORE, ServerName

__all__ = ["Address", "Topology", "broker_address", "broker_name", "known_secrets", "shown", "store_address"]


class Topology(StrEnum):
    """What stands behind a URL."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


_SCHEMES: Mapping[str, tuple[Topology, str]] = {
    "redis": (Topology.SERVER, "redis"),
    "rediss": (Topology.SERVER, "rediss"),
    "unix": (Topology.SERVER, "unix"),
    "redis+cluster": (Topology.CLUSTER, "redis"),
    "rediss+cluster": (Topology.CLUSTER, "rediss"),
    "redis+sentinel": (Topology.SENTINEL, "redis"),
    "rediss+sentinel": (Topology.SENTINEL, "rediss"),
}
"""Scheme of a URL → what it leads to, and how redis-py calls the same for a single server."""

_FORMS = {
    Topology.SERVER: "host:port/db",
    Topology.CLUSTER: "host:port,host:port",
    Topology.SENTINEL: "host:port,host:port/service/db",
}
_PORT = 6379
_SENTINEL_PORT = 26379


@dataclass(frozen=True, kw_only=True)
class Address:
    """One server, the nodes of a cluster to begin with, or the Sentinels that know the primary."""

    topology: Topology
    nodes: tuple[tuple[str, int], ...] = ()
    """Hosts and ports; none for a unix socket."""
    path: str = ""
    """The unix socket."""
    service: str = ""
    """What the Sentinels call the primary."""
    db: int = 0
    tls: Mapping[str, Any] | None = None
    """redis-py's `ssl_*` options; None for a connection in the clear."""
    username: str | None = None
    password: SecretStr | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else the URL asks of redis-py's connections."""

    @property
    def login(self) -> dict[str, str]:
        """Credentials as redis-py's connections take them. Holds the password in the clear."""
        given = {"password": self.password.get_secret_value()} if self.password else {}
        return given | ({"username": self.username} if self.username else {})

    @property
    def celery_url(self) -> str:
        """A single server as kombu and Celery's results name it. Holds the password in the clear.

        It stands where Celery knows to hide it, also if it was written elsewhere.
        """
        if self.path:
            return f"redis+socket://{self._userinfo}{quote(self.path)}?virtual_host={self.db}"
        return self.redis_url

    @property
    def celery_tls(self) -> dict[str, Any] | None:
        """The same connection's TLS as kombu and Celery's results take it; None in the clear."""
        return None if self.tls is None else {"ssl_cert_reqs": CERT_REQUIRED, **self.tls}

    @property
    def redis_url(self) -> str:
        """A single server as redis-py names it. Holds the password in the clear."""
        if self.path:
            return f"unix://{self._userinfo}{quote(self.path)}?db={self.db}"
        ((host, port),) = self.nodes
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{'redis' if self.tls is None else 'rediss'}://{self._userinfo}{where}/{self.db}"

    @property
    def _userinfo(self) -> str:
        if not self.login:
            return ""
        return ":".join(quote(self.login.get(name, ""), safe="") for name in ("username", "password")) + "@"


def store_address(settings: Settings) -> Address:
    """Where the store is. Raises: Misconfigured naming the setting that is wrong."""
    login = _login("REDIS", settings.redis_username, settings.redis_password, settings.redis_password_file)
    return _parsed("TRADEPOOL_REDIS_URL", settings.redis_url, login, settings)


def broker_address(settings: Settings) -> Address:
    """Where Celery's queues are: a single server, the store's unless another one is named.

    Raises: Misconfigured, also when only a cluster or Sentinels are named: Celery can use neither.
    """
    if settings.broker_url is None:
        address = store_address(settings)
    else:
        login = _login(
            "BROKER", settings.broker_username, settings.broker_password, settings.broker_password_file
        )
        address = _parsed("TRADEPOOL_BROKER_URL", settings.broker_url, login, settings, [Topology.SERVER])
    if address.topology is not Topology.SERVER:
        what = "a cluster" if address.topology is Topology.CLUSTER else "Sentinel"
        raise Misconfigured(
            f"Celery's queues cannot live on {what}; set TRADEPOOL_BROKER_URL to a single server"
        )
    return address


def broker_name(settings: Settings) -> ServerName:
    """What errors call the broker, and which setting says where it is."""
    return ServerName("the broker", STORE.variable if settings.broker_url is None else "TRADEPOOL_BROKER_URL")


def known_secrets(settings: Settings) -> tuple[str, ...]:
    """Every secret that `settings` name, to be kept out of what others read. Raises: Misconfigured."""
    servers = [store_address(settings)]
    if settings.broker_url is not None:
        servers.append(broker_address(settings))
    given = [server.password for server in servers] + [value for _, value in settings]
    # Whoever tells pages says what is wrong with it.
    with contextlib.suppress(Misconfigured):
        given.append(
            secret_of(
                "TRADEPOOL_AUDIT_WEBHOOK_URL", settings.audit_webhook_url, settings.audit_webhook_url_file
            )
        )
    return tuple(dict.fromkeys(one.get_secret_value() for one in given if isinstance(one, SecretStr)))


def shown(url: str) -> str:
    """A server's URL without credentials and options, for people to read."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _login(name: str, username: str | None, password: SecretStr | None, file: Path | None) -> dict[str, Any]:
    """What takes the place of the URL's credentials, as fields of an Address."""
    password = secret_of(f"TRADEPOOL_{name}_PASSWORD", password, file)
    given = {"username": username, "password": password}
    return {name: value for name, value in given.items() if value is not None}


def _parsed(
    variable: str,
    url: str,
    login: Mapping[str, Any],
    settings: Settings,
    offered: Collection[Topology] = tuple(Topology),
) -> Address:
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        choices = ", ".join(f"{name}://" for name, (kind, _) in _SCHEMES.items() if kind in offered)
        raise Misconfigured(f"{variable} must begin with one of {choices}")
    topology, plain = _SCHEMES[scheme]
    form = f"{scheme}://{'/path/of/socket' if scheme == 'unix' else _FORMS[topology]}"
    if not rest:
        raise Misconfigured(f"{variable} names no server; write {form}")
    try:
        address = _address(topology, f"{plain}://{rest}", login)
    except _DatabaseError:
        raise Misconfigured(
            f"{variable} names a database, but a cluster has only one; leave out what follows the hosts"
        ) from None
    except ValueError:
        # The problem's own words quote the URL, where a password with a / or # in it is taken for a port.
        raise Misconfigured(
            f"{variable} cannot be read as {form}; "
            "write the / # ? @ and % of a password as %2F %23 %3F %40 %25"
        ) from None
    if address.tls is None:
        return address
    return replace(address, tls={**address.tls, **_tls_files(settings)})


def _address(topology: Topology, url: str, login: Mapping[str, Any]) -> Address:
    parts = urlsplit(url)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    service = ""
    if topology is not Topology.SERVER:
        # redis-py reads one host, and knows no services.
        service, db = _service_and_db(topology, parts.path)
        url = parts._replace(netloc=f"{userinfo}{at}host", path=db).geturl()
    elif parts.scheme != "unix" and (db := parts.path.strip("/")) and not db.isdecimal():
        # redis-py takes that for database 0.
        raise ValueError("a database is a number")
    parse: Any = redis_connection.parse_url
    options: dict[str, Any] = parse(url)
    connection = options.pop("connection_class", None)
    is_socket = connection is redis_connection.UnixDomainSocketConnection
    tls = {name: options.pop(name) for name in list(options) if name.startswith("ssl_")}
    credentials: dict[str, Any] = {
        name: options.pop(name) for name in ("username", "password") if name in options
    }
    if "password" in credentials:
        credentials["password"] = SecretStr(credentials["password"])
    return Address(
        topology=topology,
        nodes=() if is_socket else _nodes(hosts, topology),
        path=options.pop("path", ""),
        service=service,
        db=int(options.pop("db", 0)),
        tls=tls if connection is redis_connection.SSLConnection else None,
        **{**credentials, **login},
        options={name: value for name, value in options.items() if name not in {"host", "port"}},
    )


class _DatabaseError(ValueError):
    """A cluster's URL asks for another database than the only one there is."""


def _service_and_db(topology: Topology, path: str) -> tuple[str, str]:
    """What the path of a URL of several hosts names. Raises: ValueError."""
    if topology is Topology.CLUSTER:
        if (db := path.strip("/")) not in {"", "0"}:
            # Anything but a number may be the rest of a password.
            raise _DatabaseError if db.isdecimal() else ValueError("a cluster has one database")
        return "", ""
    service, _, db = path.strip("/").partition("/")
    if not service or (db and not db.isdecimal()):
        raise ValueError("a service, and perhaps a database")
    return service, f"/{db}"


def _nodes(hosts: str, topology: Topology) -> tuple[tuple[str, int], ...]:
    port = _SENTINEL_PORT if topology is Topology.SENTINEL else _PORT
    found = [urlsplit(f"//{host}") for host in hosts.split(",")]
    return tuple((node.hostname or "localhost", node.port or port) for node in found)


def _tls_files(settings: Settings) -> dict[str, str]:
    """The files that the settings name, as redis-py's options."""
    files = {
        "ssl_ca_certs": ("REDIS_CA_FILE", settings.redis_ca_file),
        "ssl_certfile": ("REDIS_CERT_FILE", settings.redis_cert_file),
        "ssl_keyfile": ("REDIS_KEY_FILE", settings.redis_key_file),
    }
    for name, path in files.values():
        if path is not None and not path.is_file():
            raise Misconfigured(f"TRADEPOOL_{name}: there is no file {path}")
    return {option: str(path) for option, (_, path) in files.items() if path is not None}
