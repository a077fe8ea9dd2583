"""The contract of archived trades, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_archived import *  # noqa: F403 - the same tests with other fixtures
