"""The contract of queries, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_queries import *  # noqa: F403 - the same tests with other fixtures
