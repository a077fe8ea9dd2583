"""The contract of commits, on a cluster."""

from __future__ import annotations

from tests.contract.test_store_commit import *  # noqa: F403 - the same tests with other fixtures
