"""The contract of audits, on a cluster."""

from __future__ import annotations

import pytest

from tests.contract.test_audits import *  # noqa: F403 - the same tests with other fixtures
from tradepool import TradePool
from tradepool.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two shards, as these tests count them."""
    return settings.model_copy(update={"shard_count": 2})


@pytest.fixture
def pool(cluster_pool: TradePool) -> TradePool:
    """The pool of the other tests, on the cluster."""
    return cluster_pool
