"""The contract of several commands in one round trip, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_asking import *  # noqa: F403 - the same tests with other fixtures
