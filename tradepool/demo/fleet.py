"""The demo's fleet: an embedded server on a loopback port, and every program of `tradepool up`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradepool.fleet.programs import generated_login
from tradepool.fleet.supervisor import Supervisor
from tradepool.server.embedded import EmbeddedServer, free_port
from tradepool.settings import Settings

__all__ = ["demo_fleet", "demo_settings"]

REDIS_CONF = Path(__file__).parents[2] / "redis.conf"
"""Production's configuration; an installed package has none and starts from the server's defaults."""
OVERRIDES = ("maxmemory 1gb", "io-threads 1", "auto-aof-rewrite-min-size 64mb")
"""What a small machine cannot have of it."""
FLOWER_USER = "demo"


def demo_settings(server: EmbeddedServer, data_dir: Path) -> Settings:
    """Settings for half a minute: everything periodic happens several times."""
    return server.settings(
        data_dir=data_dir,
        audit_every_s=5,
        snapshot_every_s=10,
        mark_every_s=1.0,
        flower_host="127.0.0.1",
        flower_port=free_port(),
        metrics_port=free_port(),
        flower_basic_auth=generated_login(FLOWER_USER),
    )


@contextmanager
def demo_fleet(data_dir: Path) -> Iterator[tuple[Settings, Supervisor]]:
    """Server and fleet, running inside the block and stopped after it, however it ends.

    Raises: Misconfigured, PoolLocked, StoreUnavailable.
    """
    config = REDIS_CONF if REDIS_CONF.is_file() else None
    with EmbeddedServer(data_dir, port=0, config=config, overrides=OVERRIDES) as server:
        settings = demo_settings(server, data_dir)
        with Supervisor(settings) as supervisor:
            yield settings, supervisor
