"""What several contracts are kept on: a pool at work, writers without a journal, a scene for faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.audit_plants import Scene
from tests.pool_at_work import PoolAtWork, at_work
from tests.repairing import scene_on
from tradepool.core import TradeCore
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Durability, Settings
from tradepool.store.redis_store import RedisStore
from tradepool.store.watermark import Watermark


@pytest.fixture
def pool(redis_client: redis.Redis, settings: Settings) -> Iterator[PoolAtWork]:
    """A recovered pool on the empty server, its journal's writer driven by hand."""
    with at_work(redis_client, settings) as pool:
        yield pool


@pytest.fixture
def core(store: RedisStore, redis_client: redis.Redis) -> TradeCore:
    """Writers without a journal: nothing here waits for one."""
    settings = Settings(durability=Durability.REDIS)
    return TradeCore(store, Watermark(redis_client, store.keys, listens=False), settings)


@pytest.fixture
def scene(server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A pool that owns its journal, for faults to be planted in."""
    with scene_on(server, tmp_path / "pool", monkeypatch) as made:
        yield made
