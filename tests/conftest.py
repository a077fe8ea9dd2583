"""A real server for the whole session, emptied for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from tradepool.errors import Misconfigured
from tradepool.server.binary import find_server
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store.fence import open_fence
from tradepool.store.keys import Keys
from tradepool.store.redis_store import RedisStore

SHARD_COUNT = 4


# No test asserts a time, and that includes how long an example took. CI has a profile of its own.
hypothesis.settings.register_profile("without deadline", deadline=None)
if "CI" not in os.environ:
    hypothesis.settings.load_profile("without deadline")


@pytest.fixture(scope="session")
def server_binary() -> Path:
    """The server to start; where none is installed the test is skipped, except in CI, where it fails."""
    try:
        return find_server()
    except Misconfigured as missing:
        without_server = pytest.fail if os.environ.get("CI") else pytest.skip
        return without_server(str(missing))


@pytest.fixture(scope="session")
def server(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server on a private unix socket; a test that kills or restarts one starts its own."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def redis_client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """An empty server with an open fence."""
    client = server.client()
    client.flushall()
    client.script_flush()
    open_fence(client)
    yield client
    client.close()


@pytest.fixture
def settings(server: EmbeddedServer, tmp_path: Path) -> Settings:
    """Settings of a pool of four shards on the server."""
    return Settings(redis_url=server.url, data_dir=tmp_path / "pool", shard_count=SHARD_COUNT)


@pytest.fixture
def store(redis_client: redis.Redis, settings: Settings) -> RedisStore:
    """A store on the empty server, its fence open."""
    return RedisStore(redis_client, Keys(settings.shard_count), settings)


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder with a short name, for the sake of unix sockets; what failing runs keep goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="runs-"))
    yield folder
    shutil.rmtree(folder)
