"""The contract of the pool, on a cluster."""

from __future__ import annotations

import pytest

from tests.contract.test_pool import *  # noqa: F403 - the same tests with other fixtures
from tradepool import TradePool


@pytest.fixture
def pool(cluster_pool: TradePool) -> TradePool:
    """The pool of the other tests, on the cluster."""
    return cluster_pool
