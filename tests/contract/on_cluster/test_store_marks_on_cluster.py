"""The contract of prices and marks in the store, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_marks import *  # noqa: F403 - the same tests with other fixtures
